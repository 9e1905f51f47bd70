"""Keys for S3: where they come from, read again so that they may rotate."""

from __future__ import annotations

import configparser
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.model.errors import ConfigInvalid
from holdfast.model.secrets import Secret
from holdfast.storage.settings import StoreSettings

if TYPE_CHECKING:
    from obstore.store import S3Credential, S3CredentialProvider

KEYS_AGE_SECONDS_MAX = 600
"""Keys older than this are read again before the next request."""

_AMBIENT = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
_NEEDS_BOTO3 = (
    "role_arn",
    "credential_process",
    "sso_session",
    "sso_start_url",
    "web_identity_token_file",
    "login_session",
)


@dataclass(frozen=True, slots=True)
class AccessKeys:
    """One pair of keys, and the token that goes with temporary ones."""

    access_key: Secret
    secret_key: Secret
    session_token: Secret | None = None


@dataclass(frozen=True, slots=True)
class Profile:
    """What AWS's shared files say under one name."""

    name: str
    values: Mapping[str, str]

    @property
    def keys(self) -> AccessKeys | None:
        """The static keys, if the profile holds them and no role is to be taken with them."""
        access_key, secret_key = self.values.get("aws_access_key_id"), self.values.get("aws_secret_access_key")
        if not access_key or not secret_key or "role_arn" in self.values:
            return None
        token = self.values.get("aws_session_token")
        return AccessKeys(Secret(access_key), Secret(secret_key), Secret(token) if token else None)

    @property
    def path_style(self) -> bool | None:
        """What the nested ``s3 =`` block asks for; None where it says nothing."""
        for line in self.values.get("s3", "").splitlines():
            word, _, value = line.partition("=")
            if word.strip() == "addressing_style" and value.strip() != "auto":
                return value.strip() == "path"
        return None


class RotatingKeys:
    """Hands keys to obstore and reads them anew whenever it asks."""

    def __init__(self, read: Callable[[], AccessKeys]) -> None:
        self._read = read
        self._given: AccessKeys | None = None

    def __call__(self) -> S3Credential:
        """Return the keys of now, good for ``KEYS_AGE_SECONDS_MAX``."""
        keys = self._given = _revealed(self._read())
        return {
            "access_key_id": keys.access_key.reveal(),
            "secret_access_key": keys.secret_key.reveal(),
            "token": keys.session_token.reveal() if keys.session_token else None,
            "expires_at": datetime.now(UTC) + timedelta(seconds=KEYS_AGE_SECONDS_MAX),
        }

    def changed(self) -> bool:
        """Tell whether other keys are there now than were last handed out. Raises what reading them raises."""
        keys = _revealed(self._read())
        return self._given is not None and keys != self._given


def key_provider(settings: StoreSettings, environment: Mapping[str, str]) -> S3CredentialProvider | None:
    """Return who hands out keys, or None where obstore itself asks the web identity, container or instance role.

    Order: the settings' keys, their profile, ``AWS_*`` keys, ``AWS_PROFILE``, ambient roles, the default profile.
    Raises ``ConfigInvalid``.
    """
    if settings.access_key or settings.secret_key:
        return _from_settings(settings)
    if not settings.profile and environment.get("AWS_ACCESS_KEY_ID"):
        _from_environment(environment)
        return RotatingKeys(lambda: _from_environment(environment))
    name = profile_name(settings, environment)
    explicit = bool(settings.profile or environment.get("AWS_PROFILE"))
    if not explicit and any(environment.get(variable) for variable in _AMBIENT):
        return None
    profile = read_profile(name, environment) or Profile(name, {})
    if profile.keys is not None:
        return RotatingKeys(lambda: _from_profile(name, environment))
    if any(word in profile.values for word in _NEEDS_BOTO3):
        return _from_boto3(name)
    if explicit:
        raise ConfigInvalid(
            f"AWS profile {name!r} does not exist or holds no keys",
            hint="Look at ~/.aws/credentials and ~/.aws/config; `aws configure --profile NAME` writes them.",
        )
    return None


def profile_name(settings: StoreSettings, environment: Mapping[str, str]) -> str:
    """Return the profile in force."""
    return settings.profile or environment.get("AWS_PROFILE") or "default"


def read_profile(name: str, environment: Mapping[str, str]) -> Profile | None:
    """Return a profile of AWS's shared files, the credentials file winning; None where neither knows it.

    Source: AWS SDKs and Tools Reference Guide, "Shared config and credentials files". Raises ``ConfigInvalid``.
    """
    home = Path(environment.get("HOME") or "~").expanduser()
    config = Path(environment.get("AWS_CONFIG_FILE") or home / ".aws/config").expanduser()
    credentials = Path(environment.get("AWS_SHARED_CREDENTIALS_FILE") or home / ".aws/credentials").expanduser()
    sections = {f"profile {name}"} if name != "default" else {"default", "profile default"}
    found = [*_sections(config, sections), *_sections(credentials, {name})]
    if not found:
        return None
    return Profile(name, {key: value for section in found for key, value in section.items()})


def _sections(path: Path, names: set[str]) -> list[dict[str, str]]:
    parser = configparser.RawConfigParser(strict=False, default_section="")
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError):
        raise ConfigInvalid(f"{path} cannot be read", hint="Check its owner, mode and encoding.") from None
    except configparser.Error:
        # Its error quotes the line, which may be a key.
        raise ConfigInvalid(f"{path} is not a valid AWS file", hint="Mend it, or give keys in another way.") from None
    return [dict(parser.items(name)) for name in parser.sections() if name in names]


def _from_settings(settings: StoreSettings) -> RotatingKeys:
    access_key, secret_key = settings.access_key, settings.secret_key
    if access_key is None or secret_key is None:
        raise ConfigInvalid("only one of access_key and secret_key is given", hint="Give both, or neither.")
    keys = AccessKeys(access_key, secret_key, settings.session_token)
    return RotatingKeys(lambda: keys)


def _from_environment(environment: Mapping[str, str]) -> AccessKeys:
    secret_key = environment.get("AWS_SECRET_ACCESS_KEY")
    if not secret_key:
        raise ConfigInvalid("AWS_ACCESS_KEY_ID is set without AWS_SECRET_ACCESS_KEY", hint="Set both, or neither.")
    token = environment.get("AWS_SESSION_TOKEN")
    access_key = environment.get("AWS_ACCESS_KEY_ID", "")
    return AccessKeys(Secret(access_key), Secret(secret_key), Secret(token) if token else None)


def _from_profile(name: str, environment: Mapping[str, str]) -> AccessKeys:
    profile = read_profile(name, environment)
    keys = profile.keys if profile else None
    if keys is None:
        raise ConfigInvalid(f"AWS profile {name!r} holds no keys any more", hint="Look at ~/.aws/credentials.")
    return keys


def _from_boto3(name: str) -> S3CredentialProvider:
    try:
        import boto3
        from botocore.exceptions import BotoCoreError
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError as error:
        raise ConfigInvalid(
            f"AWS profile {name!r} takes a role, a process or single sign-on, which needs boto3",
            hint="Install it with `pip install 'holdfast[s3]'`, or give keys.",
        ) from error
    try:
        return Boto3CredentialProvider(boto3.Session(profile_name=name), ttl=timedelta(seconds=KEYS_AGE_SECONDS_MAX))
    except (BotoCoreError, ValueError) as error:
        raise ConfigInvalid(
            f"AWS profile {name!r} gives no credentials: {type(error).__name__}",
            hint="Try `aws sts get-caller-identity --profile NAME`; log in again where single sign-on is used.",
        ) from error


def _revealed(keys: AccessKeys) -> AccessKeys:
    token = Secret(keys.session_token.reveal()) if keys.session_token else None
    return AccessKeys(Secret(keys.access_key.reveal()), Secret(keys.secret_key.reveal()), token)
