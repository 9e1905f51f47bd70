"""From settings to stores and keys, without a network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.model.errors import ConfigInvalid
from holdfast.model.secrets import Secret
from holdfast.storage.clients import _s3_config, is_local, request_seconds_max, size_class
from holdfast.storage.credentials import RotatingKeys, key_provider
from holdfast.storage.folder import FolderStore
from holdfast.storage.objects import ObjectStore
from holdfast.storage.opening import open_store
from holdfast.storage.settings import StoreSettings

MIB = 1024 * 1024


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    folder = tmp_path / ".aws"
    folder.mkdir()
    (folder / "credentials").write_text(
        "[default]\naws_access_key_id = DEFAULT\naws_secret_access_key = d%s\n\n"
        "[backup]\naws_access_key_id = BACKUP\naws_secret_access_key = b\naws_session_token = t\n"
    )
    (folder / "config").write_text(
        "[default]\nregion = eu-west-3\n\n"
        "[profile backup]\nregion = eu-north-1\nendpoint_url = http://minio:9000\n"
        "s3 =\n    addressing_style = virtual\n\n"
        "[profile assumed]\nrole_arn = arn:aws:iam::123456789012:role/x\nsource_profile = backup\n\n"
        "[profile bare]\nregion = eu-north-1\n"
    )
    return {"HOME": str(tmp_path)}


def given_key(settings: StoreSettings, environment: dict[str, str]) -> str:
    provider = key_provider(settings, environment)
    assert isinstance(provider, RotatingKeys)
    return str(provider()["access_key_id"])


def test_a_path_and_a_file_url_are_the_same_folder(tmp_path: Path) -> None:
    folder = tmp_path / "with space"
    plain, url = open_store(StoreSettings(str(folder))), open_store(StoreSettings(folder.as_uri()))
    assert isinstance(plain, FolderStore)
    assert plain.url == url.url == folder.as_uri()
    assert not folder.exists()


@pytest.mark.parametrize("url", ["gs://bucket/prefix", "az://container/prefix", "s3://bucket", "memory://"])
def test_object_stores_open_by_url_without_a_request(url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    store = open_store(StoreSettings(url), {"HOME": str(tmp_path)})
    assert isinstance(store, ObjectStore)
    assert store.url == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://host/x",
        "http://host/x",
        "file://host/x",
        "file://",
        "s3://",
        "s3:///x",
        "s3://key:secret@bucket/x",
        "s3://bucket/x?region=y",
    ],
)
def test_an_impossible_address_is_refused_with_a_hint_and_shows_no_secret(url: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        open_store(StoreSettings(url), {})
    assert caught.value.hint
    assert "secret@" not in caught.value.message


def test_opening_a_folder_imports_no_object_store_library() -> None:
    code = (
        "import sys; from holdfast.storage.opening import open_store, StoreSettings;"
        "open_store(StoreSettings('/x')); sys.exit(any(m.split('.')[0] in ('obstore', 'boto3') for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_plain_http_is_for_local_endpoints_only() -> None:
    settings = StoreSettings("s3://b", endpoint="http://s3.example.com", access_key=Secret("a"), secret_key=Secret("b"))
    with pytest.raises(ConfigInvalid, match="not encrypted"):
        open_store(settings, {})
    for host in ("localhost", "127.0.0.1", "10.1.2.3", "192.168.1.5", "::1", "minio", "minio.storage.svc", "nas.local"):
        assert is_local(host)
    for host in ("8.8.8.8", "s3.example.com", "localhost.example.com"):
        assert not is_local(host)


def test_time_limit_of_a_request_grows_with_its_size() -> None:
    assert request_seconds_max(0) == 60
    assert request_seconds_max(32 * MIB) == 572
    assert [size_class(size) for size in (0, 1, MIB, MIB + 1, 33 * MIB)] == [MIB, MIB, MIB, 2 * MIB, 64 * MIB]


def test_keys_are_looked_for_in_the_order_of_aws_tools(home: dict[str, str]) -> None:
    variables = {"AWS_ACCESS_KEY_ID": "VARIABLE", "AWS_SECRET_ACCESS_KEY": "v"}
    explicit = StoreSettings("s3://b", access_key=Secret("EXPLICIT"), secret_key=Secret("e"), profile="backup")
    assert given_key(explicit, home | variables) == "EXPLICIT"
    assert given_key(StoreSettings("s3://b", profile="backup"), home | variables) == "BACKUP"
    assert given_key(StoreSettings("s3://b"), home | variables | {"AWS_PROFILE": "backup"}) == "VARIABLE"
    assert given_key(StoreSettings("s3://b"), home | {"AWS_PROFILE": "backup"}) == "BACKUP"
    assert given_key(StoreSettings("s3://b"), home) == "DEFAULT"
    assert key_provider(StoreSettings("s3://b"), home | {"AWS_WEB_IDENTITY_TOKEN_FILE": "/t"}) is None
    assert key_provider(StoreSettings("s3://b"), {"HOME": "/nowhere"}) is None


def test_percent_signs_in_a_secret_are_kept(home: dict[str, str]) -> None:
    provider = key_provider(StoreSettings("s3://b"), home)
    assert isinstance(provider, RotatingKeys)
    assert provider()["secret_access_key"] == "d%s"


def test_a_profile_that_takes_a_role_goes_through_boto3(home: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", f"{home['HOME']}/.aws/config")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", f"{home['HOME']}/.aws/credentials")
    provider = key_provider(StoreSettings("s3://b", profile="assumed"), home)
    assert type(provider).__name__ == "Boto3CredentialProvider"


def test_without_boto3_such_a_profile_says_what_to_install(
    home: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ConfigInvalid, match="boto3") as caught:
        key_provider(StoreSettings("s3://b", profile="assumed"), home)
    assert "holdfast[s3]" in caught.value.hint


@pytest.mark.parametrize("profile", ["bare", "absent"])
def test_a_profile_without_keys_is_refused(home: dict[str, str], profile: str) -> None:
    with pytest.raises(ConfigInvalid, match=profile):
        key_provider(StoreSettings("s3://b", profile=profile), home)


def test_half_a_pair_of_keys_is_refused() -> None:
    with pytest.raises(ConfigInvalid):
        key_provider(StoreSettings("s3://b", access_key=Secret("a")), {})
    with pytest.raises(ConfigInvalid):
        open_store(StoreSettings("s3://b"), {"AWS_ACCESS_KEY_ID": "a"})


def test_a_broken_aws_file_is_refused_without_quoting_it(home: dict[str, str]) -> None:
    Path(home["HOME"], ".aws/credentials").write_text("aws_secret_access_key = VERYSECRET\n")
    with pytest.raises(ConfigInvalid) as caught:
        key_provider(StoreSettings("s3://b", profile="backup"), home)
    assert "VERYSECRET" not in repr(caught.value)
    assert caught.value.__cause__ is None


def test_region_endpoint_and_style_come_from_settings_then_variables_then_profile(home: dict[str, str]) -> None:
    profile = _s3_config(StoreSettings("s3://b", profile="backup"), home, "b")
    assert (profile["region"], profile["endpoint"]) == ("eu-north-1", "http://b.minio:9000")
    assert profile["virtual_hosted_style_request"] is True
    variables = home | {"AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL": "https://s3.example.com/"}
    variable = _s3_config(StoreSettings("s3://b"), variables, "b")
    assert (variable["region"], variable["endpoint"]) == ("eu-west-1", "https://s3.example.com")
    assert variable["virtual_hosted_style_request"] is False
    explicit = _s3_config(StoreSettings("s3://b", region="r", endpoint="https://e", path_style=True), variables, "b")
    assert (explicit["region"], explicit["endpoint"]) == ("r", "https://e")
    assert _s3_config(StoreSettings("s3://b"), {"HOME": "/nowhere"}, "b")["virtual_hosted_style_request"] is True
    assert _s3_config(StoreSettings("s3://b.c"), {"HOME": "/nowhere"}, "b.c")["virtual_hosted_style_request"] is False


def test_keys_that_rotate_are_read_again(tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text("one")
    settings = StoreSettings("s3://b", access_key=Secret("id"), secret_key=Secret(secret.read_text))
    provider = key_provider(settings, {})
    assert isinstance(provider, RotatingKeys)
    assert provider()["secret_access_key"] == "one"
    assert not provider.changed()
    secret.write_text("two")
    assert provider.changed()
    assert provider()["secret_access_key"] == "two"
    assert not provider.changed()
