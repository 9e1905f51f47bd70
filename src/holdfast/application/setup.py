"""Sets an application up: repositories, keys, and the configuration file, which comes last (``holdfast init``)."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from holdfast import bootstrap
from holdfast.application.results import InitOutcome, RepositoryView
from holdfast.application.setup_files import PUBLIC_MODE, SECRET_MODE, write_new_file
from holdfast.application.setup_kit import recovery_kit
from holdfast.config.loading import config_from_text, load_config
from holdfast.config.settings import Config
from holdfast.config.template import Answers, render_config
from holdfast.model.errors import ConfigInvalid, Denied, KeyInvalid, RepositoryAbsent
from holdfast.model.secrets import Secret
from holdfast.repository.keyring import KeyFile, Passphrase, Unlock, new_key_file_text
from holdfast.repository.repository import (
    Repository,
    add_slot,
    carry_repository,
    create_repository,
    open_repository,
    read_identity,
)
from holdfast.storage.clock import measure_clock
from holdfast.storage.port import Store
from holdfast.storage.race import probe_race
from holdfast.storage.settled import Retry, ignore_retry

PASSPHRASE_CHARACTERS_MIN = 8
PASSPHRASE_DIFFERENT_MIN = 4
CLOCK_SECONDS_NOTICE = 30.0
_OBVIOUS = ("password", "passphrase", "holdfast", "changeme", "123456", "qwerty", "letmein")


@dataclass(frozen=True, slots=True)
class SetupOrder:
    """What is to be set up.

    ``path`` (absolute) is where the configuration is, or will be; ``answers`` None says that it exists. ``passphrase``
    is taken instead of the one the configuration names, which may not be there yet.
    """

    path: Path
    answers: Answers | None = None
    passphrase: Secret | None = None
    label: str = ""


@dataclass(frozen=True, slots=True, repr=False)
class _Keys:
    """What opens the repositories: secrets at hand, and a key file that is named and not there yet."""

    known: tuple[Unlock, ...]
    fresh: KeyFile | None
    fresh_path: Path | None

    @property
    def all(self) -> tuple[Unlock, ...]:
        return (*self.known, self.fresh) if self.fresh is not None else self.known


@dataclass(frozen=True, slots=True)
class _Work:
    """What every step of one set-up is given."""

    config: Config
    keys: _Keys
    label: str
    on_retry: Callable[[Retry], None]
    notices: list[str] = field(default_factory=list)


def set_up(
    order: SetupOrder,
    environment: Mapping[str, str] = os.environ,
    on_retry: Callable[[Retry], None] = ignore_retry,
) -> InitOutcome:
    """Make what is missing: repositories, key slots, a key file, the configuration; change nothing that is there.

    May be repeated: a run that died half way is finished by the next. The configuration comes last, so that one that
    exists speaks of repositories that do. Raises ``KeyInvalid`` where a repository exists that the secret at hand does
    not open (nothing is added then), ``ConfigInvalid`` for a weak passphrase, ``Denied`` for a store that cannot be a
    home, ``Conflict`` where two repositories of one configuration are not the same.
    """
    text = render_config(order.answers) if order.answers is not None else None
    config = load_config(order.path, environment) if text is None else config_from_text(text, order.path, environment)
    label = order.label or f"init on {socket.gethostname()}"
    work = _Work(config, _keys_of(config, order.passphrase), label, on_retry)
    repositories = _make_repositories(work)
    if text is not None:
        write_new_file(order.path, text, PUBLIC_MODE)
    fresh = work.keys.fresh
    return InitOutcome(
        config_path=order.path,
        config_written=text is not None,
        repositories=repositories,
        key_file=work.keys.fresh_path,
        notices=tuple(work.notices),
        kit=recovery_kit(config, repositories, generated=fresh.secret if fresh is not None else None),
    )


def refuse_weak(passphrase: Secret) -> None:
    """Raise ``ConfigInvalid`` for a passphrase that anyone would guess who holds the store."""
    text = passphrase.reveal()
    if len(text) < PASSPHRASE_CHARACTERS_MIN or len(set(text)) < PASSPHRASE_DIFFERENT_MIN:
        problem = f"it has fewer than {PASSPHRASE_CHARACTERS_MIN} characters, or always the same ones"
    elif any(text.lower().strip("0123456789!.-_ ") == word for word in _OBVIOUS) or text.isdigit():
        problem = "it is among the first that anyone tries"
    else:
        return
    raise ConfigInvalid(
        f"the passphrase is too weak: {problem}",
        hint="Take four or more random words, or let holdfast generate a key file with --new-key-file PATH.",
    )


def _keys_of(config: Config, given: Secret | None) -> _Keys:
    passphrase = given if given is not None else config.passphrase()
    known: list[Unlock] = [Passphrase(passphrase)] if passphrase is not None else []
    path = config.key_file()
    if path is None:
        return _Keys(tuple(known), None, None)
    if path.exists():
        return _Keys((*known, KeyFile(bootstrap.read_key_file(path))), None, None)
    return _Keys(tuple(known), KeyFile(Secret(new_key_file_text())), path)


def _make_repositories(work: _Work) -> tuple[RepositoryView, ...]:
    """Open the repository wherever it exists, or make it in the first place; then bring it to every other one."""
    names = [repository.name for repository in work.config.repositories]
    stores = {name: bootstrap.store_of(work.config, name, work.on_retry) for name in names}
    try:
        home = next((name for name in names if _exists(stores[name])), None)
        if home is None:
            home = names[0]
            origin, made = _create(work, stores[home]), True
        else:
            origin, made = _open(work, stores[home]), False
        views = {home: RepositoryView(home, work.config.repository(home).url, origin.id.hex(), made)}
        for name in names:
            if name != home:
                views[name] = _carry(work, origin, name, stores[name])
        return tuple(views[name] for name in names)
    finally:
        for store in stores.values():
            store.close()


def _exists(store: Store) -> bool:
    try:
        read_identity(store)
    except RepositoryAbsent:
        return False
    return True


def _create(work: _Work, store: Store) -> Repository:
    for unlock in work.keys.all:
        if isinstance(unlock, Passphrase):
            refuse_weak(unlock.secret)
    _refuse_unfit(work, store)
    _write_fresh(work.keys)
    first, *others = work.keys.all
    now = datetime.now(UTC)
    repository, _ = create_repository(store, first, work.label, now)
    for unlock in others:
        add_slot(repository, unlock, work.label, now)
    return repository


def _open(work: _Work, store: Store) -> Repository:
    """Open with the first secret alone, which must be right; only then may slots for the others be added."""
    repository = open_repository(store, list(work.keys.known[:1]))
    for unlock in work.keys.all[1:]:
        try:
            open_repository(store, [unlock])
        except KeyInvalid:
            if unlock is work.keys.fresh:
                _write_fresh(work.keys)
            add_slot(repository, unlock, work.label, datetime.now(UTC))
    return repository


def _carry(work: _Work, origin: Repository, name: str, store: Store) -> RepositoryView:
    if not _exists(store):
        _refuse_unfit(work, store)
    made = carry_repository(origin, store, datetime.now(UTC))
    return RepositoryView(name, work.config.repository(name).url, origin.id.hex(), made)


def _write_fresh(keys: _Keys) -> None:
    # On disk before any slot: a slot whose key was lost in a crash would look like a way in, and be none.
    if keys.fresh is not None and keys.fresh_path is not None:
        write_new_file(keys.fresh_path, keys.fresh.secret.reveal(), SECRET_MODE)


def _refuse_unfit(work: _Work, store: Store) -> None:
    """Try what only a real try tells, below ``volatile/probe/``; a clock far off is no reason to refuse, only told."""
    clock = measure_clock(store)
    if abs(clock.offset_seconds) - clock.uncertainty_seconds > CLOCK_SECONDS_NOTICE:
        work.notices.append(
            f"the clock of {store.url} is {clock.offset_seconds:+.0f} s from this machine's; set this machine's clock"
        )
    found = probe_race(store)
    if not found.sound:
        raise Denied(
            f"{store.url} cannot be a home for a repository: {found.problem}",
            hint="Two backups at once could destroy each other there. Use a local disk, or a store that honours "
            "If-None-Match (conditional writes).",
        )
