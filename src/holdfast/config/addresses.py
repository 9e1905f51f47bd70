"""Addresses as operators write them: where a repository lies, how a server is reached, and no passwords in either."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, quote, unquote, urlsplit

from holdfast.model.errors import ConfigInvalid
from holdfast.model.secrets import Secret

FOLDER_SCHEME = "file"
BUCKET_SCHEMES = ("s3", "gs", "az")
REPOSITORY_SCHEMES = (FOLDER_SCHEME, *BUCKET_SCHEMES)
REPOSITORY_HINT = "Write file:///absolute/folder, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix."

KIND_OF_SCHEME = {
    "postgresql": "postgres",
    "postgres": "postgres",
    "redis": "redis",
    "rediss": "redis",
    "http": "search",
    "https": "search",
    "s3": "bucket",
}
ADDRESS_FORMS = {
    "postgres": "host=db.internal user=backup dbname=shop, or postgresql://backup@db.internal/shop",
    "redis": "redis://cache.internal:6379, or rediss:// for TLS",
    "search": "http://elasticsearch:9200, or https://",
    "bucket": "s3://bucket, or s3://bucket/prefix",
}
_ANY_FORM = f"Write {'; '.join(ADDRESS_FORMS.values())}."
REFERENCE_FORMS = "{env: NAME}, {file: PATH} or {command: [PROGRAM, ARGUMENT]}"

_DSN_SECRETS = ("password", "sslpassword", "oauth_client_secret")
_DSN_PAIR = re.compile(
    r"\s*([A-Za-z_]+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|((?:[^\s'\\]|\\.)(?:[^\s\\]|\\.)*)?)\s*", re.DOTALL
)
_DSN_WORDS = re.findall(
    r"\w+",
    """
    application_name channel_binding client_encoding connect_timeout dbname fallback_application_name gssdelegation
    gssencmode gsslib host hostaddr keepalives keepalives_count keepalives_idle keepalives_interval krbsrvname
    load_balance_hosts max_protocol_version min_protocol_version options passfile password port replication
    require_auth requirepeer requiressl service servicefile ssl_max_protocol_version ssl_min_protocol_version sslcert
    sslcertmode sslcompression sslcrl sslcrldir sslkey sslkeylogfile sslmode sslnegotiation sslpassword sslrootcert
    sslsni target_session_attrs tcp_user_timeout user
    """,
)
"""libpq's words (PostgreSQL 18), so that a slip of the pen is named with its line; libpq has the last word."""
_URL_START = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class SplitAddress:
    """A source's address and the password that was found in it, kept apart."""

    kind: str
    address: str
    password: Secret | None


def normalized_repository_url(text: str) -> str:
    """Return the one spelling of a repository's address; an absolute path is a folder. Raises ``ConfigInvalid``."""
    url = f"file://{quote(text)}" if text.startswith("/") else text
    parts = _split(url, REPOSITORY_HINT)
    if parts.scheme not in REPOSITORY_SCHEMES:
        raise ConfigInvalid(_odd_scheme(parts, "repository"), hint=REPOSITORY_HINT)
    if parts.username is not None or parts.password is not None:
        raise ConfigInvalid(
            "the repository's url holds credentials",
            hint="Leave them out; use AWS_* variables, profile, or access_key and secret_key.",
        )
    if parts.query or parts.fragment:
        raise ConfigInvalid(
            "the repository's url holds ? or #", hint="Write region, endpoint, ... as keys beside the url."
        )
    path = re.sub(r"/+", "/", parts.path).rstrip("/")
    if parts.scheme == FOLDER_SCHEME:
        if parts.netloc not in {"", "localhost"} or not path or ".." in path.split("/"):
            raise ConfigInvalid("the folder of a repository is an absolute path", hint=REPOSITORY_HINT)
        return f"file://{path}"
    if not parts.netloc:
        raise ConfigInvalid("the repository's url names no bucket", hint=REPOSITORY_HINT)
    return f"{parts.scheme}://{parts.netloc}{path}"


def folder_of(url: str) -> Path | None:
    """Return the folder of a ``file://`` address, None for any other."""
    parts = urlsplit(url)
    return Path(unquote(parts.path)) if parts.scheme == FOLDER_SCHEME else None


def checked_address(kind: str, address: str) -> str:
    """Return a source's address if it is of its kind and holds no password. Raises ``ConfigInvalid``."""
    if kind == "postgres" and _URL_START.match(address) is None:
        parameters = dsn_parameters(address)
        secrets = [word for word in parameters if word in _DSN_SECRETS]
        if secrets:
            raise ConfigInvalid(
                f"the address holds {secrets[0]}= in clear",
                hint=f"Remove it, and write beside it password: {REFERENCE_FORMS}; .pgpass and PGPASSWORD work too.",
            )
        for word in parameters:
            near = [] if word in _DSN_WORDS else difflib.get_close_matches(word, _DSN_WORDS, n=1, cutoff=0.7)
            if near:
                raise ConfigInvalid(f"{word}= is no word of a PostgreSQL address", hint=f'Did you mean "{near[0]}"?')
        return address
    found = split_address(address)
    if found.kind != kind:
        raise ConfigInvalid(f"this is an address of kind {found.kind}", hint=f"Write {ADDRESS_FORMS[kind]}.")
    if found.password is not None:
        raise ConfigInvalid(
            "the address holds a password in clear", hint=f"Remove it, and write beside it password: {REFERENCE_FORMS}."
        )
    return address


def split_address(url: str) -> SplitAddress:
    """Return kind, address and password of a source's URL. Raises ``ConfigInvalid``, showing nothing of it."""
    parts = _split(url, _ANY_FORM)
    kind = KIND_OF_SCHEME.get(parts.scheme)
    if kind is None:
        raise ConfigInvalid(_odd_scheme(parts, "source"), hint=_ANY_FORM)
    if kind == "bucket":
        return SplitAddress(kind, _bucket(parts), None)
    if kind != "postgres" and not parts.hostname:
        raise ConfigInvalid("the address names no host", hint=f"Write {ADDRESS_FORMS[kind]}.")
    user, colon, password = parts.netloc.rpartition("@")[0].partition(":")
    secret = Secret(unquote(password)) if colon and password else None
    hosts = parts.netloc.rpartition("@")[2]
    query = parts.query
    if kind == "postgres":
        query, in_query = _query_without_password(query)
        secret = in_query or secret
    address = f"{parts.scheme}://{user}@{hosts}{parts.path}" if user else f"{parts.scheme}://{hosts}{parts.path}"
    return SplitAddress(kind, f"{address}?{query}" if query else address, secret)


def dsn_parameters(dsn: str) -> dict[str, str]:
    """Return the words of a libpq ``key=value`` address. Raises ``ConfigInvalid``, showing nothing of it.

    Written after "Connection Strings" of libpq's documentation, so that reading the file needs no database driver.
    """
    parameters: dict[str, str] = {}
    position = 0
    while position < len(dsn):
        found = _DSN_PAIR.match(dsn, position)
        if found is None or found.end() == position:
            if not dsn[position:].strip():
                break
            raise ConfigInvalid(
                f"the address cannot be read from character {position + 1} on",
                hint=f"Write {ADDRESS_FORMS['postgres']}.",
            )
        quoted, bare = found[2], found[3]
        parameters[found[1]] = _ESCAPED.sub(r"\1", quoted if quoted is not None else bare or "")
        position = found.end()
    return parameters


def _query_without_password(query: str) -> tuple[str, Secret | None]:
    """Split the password off a libpq URL's parameters; the others keep their spelling."""
    secret, kept = None, []
    for pair in query.split("&"):
        word, _, value = pair.partition("=")
        if unquote(word) == "password":
            secret = Secret(unquote(value))
        elif unquote(word) in _DSN_SECRETS:
            raise ConfigInvalid(f"the address holds {unquote(word)}= in clear", hint="Keep it in a service file.")
        else:
            kept.append(pair)
    return "&".join(kept), secret


def _bucket(parts: SplitResult) -> str:
    if not parts.netloc or parts.username is not None or parts.query or parts.fragment:
        raise ConfigInvalid("this is not the address of a bucket", hint=f"Write {ADDRESS_FORMS['bucket']}.")
    return f"s3://{parts.netloc}{parts.path.rstrip('/')}"


def _split(url: str, hint: str) -> SplitResult:
    if any(character.isspace() or not character.isprintable() for character in url):
        raise ConfigInvalid("the url holds blanks or control characters", hint=f"Percent-encode them. {hint}")
    try:
        parts = urlsplit(url)
        # Several hosts of a libpq URL make .port meaningless; everything else has at most one.
        if "," not in parts.netloc:
            _ = parts.port
    except ValueError as error:
        raise ConfigInvalid("the url cannot be read: its host or port is odd", hint=hint) from error
    return parts


def _odd_scheme(parts: SplitResult, thing: str) -> str:
    return f"{parts.scheme}:// is no address of a {thing}" if parts.scheme else f"this is no address of a {thing}"
