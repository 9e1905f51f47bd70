"""Secrets are fetched from where the file says, and nothing of them is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.config import secret_references
from holdfast.config.secret_references import (
    SECRET_BYTES_MAX,
    SecretReference,
    fetch_secret,
    is_open_to_others,
    read_reference,
)
from holdfast.model.errors import ConfigInvalid, Unavailable
from holdfast.model.secrets import Secret


def _fetch(folder: Path, environment: dict[str, str] | None = None, **form: object) -> str:
    return fetch_secret(read_reference(form), "the password of source orders", environment or {}, folder).reveal()


def test_each_form_gives_its_secret(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("from a file\n")
    environment = {"PATH": "/usr/bin:/bin", "PASSWORD": "from a variable", "HOME": str(tmp_path)}
    assert _fetch(tmp_path, environment, env="PASSWORD") == "from a variable"
    assert _fetch(tmp_path, environment, file="password") == "from a file"
    assert _fetch(Path("/"), environment, file="~/password") == "from a file"
    assert _fetch(tmp_path, environment, command=["echo", "from a command"]) == "from a command"
    assert _fetch(tmp_path, environment, clear="in clear") == "in clear"


def test_a_command_sees_the_environment_that_was_given(tmp_path: Path) -> None:
    environment = {"PATH": "/usr/bin:/bin", "VAULT": "v"}
    assert _fetch(tmp_path, environment, command=["sh", "-c", "echo $VAULT-$HOME"]) == "v-"


@pytest.mark.parametrize(
    ("content", "secret"),
    [(b"a\n", "a"), (b"a\r\n", "a"), (b"a\n\n", "a\n"), (b" a ", " a "), ("ключ\n".encode(), "ключ")],
)
def test_one_line_end_is_not_part_of_a_secret(tmp_path: Path, content: bytes, secret: str) -> None:
    (tmp_path / "password").write_bytes(content)
    assert _fetch(tmp_path, file="password") == secret


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe", b"x" * (SECRET_BYTES_MAX + 1)])
def test_a_file_that_holds_no_secret_is_refused_by_its_path(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "password").write_bytes(content)
    with pytest.raises(ConfigInvalid, match="the password of source orders, from the file password,"):
        _fetch(tmp_path, file="password")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    for form, name in (
        ({"env": "NOT_SET"}, "NOT_SET is not set"),
        ({"file": "absent"}, f"{tmp_path / 'absent'} cannot be read"),
        ({"command": ["/absent/program"]}, "/absent/program cannot be run"),
        ({"command": ["false"]}, "false ended with 1"),
    ):
        with pytest.raises(ConfigInvalid, match=f"the password of source orders is missing: .*{name}") as refused:
            _fetch(tmp_path, {"PATH": "/usr/bin:/bin"}, **form)
        assert refused.value.hint


def test_an_empty_variable_is_a_missing_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="EMPTY is not set"):
        _fetch(tmp_path, {"EMPTY": ""}, env="EMPTY")


def test_the_output_of_a_command_that_fails_is_not_shown(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigInvalid) as refused:
        _fetch(tmp_path, {"PATH": "/bin"}, command=["sh", "-c", "echo hunter2; echo hunter2 >&2; exit 3"])
    shown = capfd.readouterr()
    assert "hunter2" not in f"{refused.value.message}{refused.value.hint}{refused.value.__cause__}{shown}"


def test_a_command_that_never_ends_is_stopped_and_its_output_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secret_references, "SECRET_COMMAND_SECONDS_MAX", 0.2)
    with pytest.raises(Unavailable, match="did not end within") as refused:
        _fetch(tmp_path, {"PATH": "/bin:/usr/bin"}, command=["sh", "-c", "echo hunter2; exec sleep 60"])
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__


def test_a_reference_shows_where_a_secret_comes_from_and_not_what_it_is() -> None:
    assert str(SecretReference(env="NAME")) == "$NAME"
    assert str(SecretReference(file="/run/secret")) == "the file /run/secret"
    assert str(SecretReference(command=("vault", "read", "x"))) == "the command vault"
    clear = SecretReference(clear=Secret("hunter2"))
    assert "hunter2" not in f"{clear}{clear!r}"


@pytest.mark.parametrize("value", ["text", 5, None, [], {}, {"env": "A", "file": "b"}, {"vault": "x"}, {"env": "A B"}])
def test_other_forms_are_refused_with_the_right_ones(value: object) -> None:
    with pytest.raises(ConfigInvalid) as refused:
        read_reference(value)
    assert "{env: NAME}, {file: PATH} or {command: [PROGRAM, ARGUMENT]}" in refused.value.hint


def test_a_file_is_open_to_others_by_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "password"
    assert not is_open_to_others(path)
    path.touch()
    for mode, is_open in ((0o600, False), (0o400, False), (0o640, True), (0o604, True)):
        path.chmod(mode)
        assert is_open_to_others(path) is is_open
