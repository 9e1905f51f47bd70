"""Key slots of an application's repositories: list, add, remove, rotate, export (``holdfast key``)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from holdfast import bootstrap
from holdfast.application.results import KeyOutcome, RepositoryView, SlotView
from holdfast.application.setup import refuse_weak
from holdfast.application.setup_files import SECRET_MODE, write_new_file
from holdfast.application.setup_kit import recovery_kit
from holdfast.config.settings import Config
from holdfast.model.errors import ConfigInvalid, HoldfastError, RepositoryAbsent
from holdfast.model.secrets import Secret
from holdfast.repository.format.names import SlotId
from holdfast.repository.keyring import KeyFile, Passphrase, Unlock, new_key_file_text
from holdfast.repository.repository import (
    Repository,
    add_slot,
    carry_repository,
    list_slots,
    open_repository,
    remove_slot,
    rotate,
)
from holdfast.storage.settled import Retry, ignore_retry


@dataclass(frozen=True, slots=True)
class Keys:
    """The key verbs of one configuration.

    They work on the first repository and then bring the others along: copies of a repository share their slots. A copy
    that cannot be reached is a failure in the outcome, not an error; the next change, or ``init``, brings it along.
    Raise what ``Application`` raises, ``KeyInvalid`` where the secret at hand opens one source only.
    """

    config: Config
    on_retry: Callable[[Retry], None] = ignore_retry

    def slots(self, repository: str | None = None) -> list[SlotView]:
        """Return the slots, the oldest first."""
        with self._opened(repository) as opened:
            known = {slot.id: slot.content for slot in opened.slots}
            found = []
            for slot in list_slots(opened):
                content = known.get(slot.id)
                epochs = () if content is None else tuple(sorted(content.roots or content.area_epochs))
                label = content.label if content is not None else None
                view = SlotView(
                    slot.id.hex(), slot.kind, slot.scope, slot.created_at, content is not None, label, epochs
                )
                found.append(view)
        return sorted(found, key=lambda slot: slot.created_at)

    def add_passphrase(self, passphrase: Secret, label: str, source: str | None = None) -> KeyOutcome:
        """Let another passphrase open the repositories, or one source's part of them."""
        refuse_weak(passphrase)
        return self._add(Passphrase(passphrase), label, source)

    def add_key_file(self, path: Path, label: str, source: str | None = None) -> KeyOutcome:
        """Write a new key file (readable by this user alone) and let it open the repositories, or one source's part."""
        secret = Secret(new_key_file_text())
        # On disk before its slot is: a slot whose key was lost in a crash would look like a way in, and be none.
        with self._opened(None) as opened:
            opened.keys.whole()
        write_new_file(path, secret.reveal(), SECRET_MODE)
        return self._add(KeyFile(secret), label, source)

    def remove(self, slot: str) -> KeyOutcome:
        """Remove a slot, given by an unambiguous beginning of its id, from every repository."""
        with self._opened(None) as opened:
            slot_id = _found(slot, [known.id for known in list_slots(opened)])
            remove_slot(opened, slot_id)
            failures = self._on_copies(lambda copy: _remove_there(copy, [slot_id]))
            return KeyOutcome((slot_id.hex(),), opened.keys.current_epoch, (), (), failures)

    def rotate(self) -> KeyOutcome:
        """Begin a new epoch: what is written from now on opens only with the secrets at hand.

        Older slots whose secret is not at hand are left behind (named in the outcome): they open what is older.
        """
        with self._opened(None) as opened:
            epoch, behind = rotate(opened, datetime.now(UTC))
            old = [slot.id for slot in opened.slots if slot.content.area is None]
            reopened = open_repository(opened.store, [slot.unlock for slot in opened.slots])

            def follow(copy: Repository) -> None:
                carry_repository(reopened, copy.store, datetime.now(UTC))
                _remove_there(copy, old)

            failures = self._on_copies(follow)
            fresh = tuple(slot.id.hex() for slot in reopened.slots if slot.id not in old)
            return KeyOutcome(fresh, epoch, tuple(slot_id.hex() for slot_id in behind), (), failures)

    def kit(self, key_file: Path) -> str:
        """Return the recovery kit for a key file: where things are, and how to use it. Holds no secret."""
        with self._opened(None) as opened:
            views = [RepositoryView(each.name, each.url, opened.id.hex(), False) for each in self.config.repositories]
        return recovery_kit(self.config, views, key_file=key_file)

    def _add(self, unlock: Unlock, label: str, source: str | None) -> KeyOutcome:
        only = None
        if source is not None:
            only = (self.config.application, self.config.source(source).name)
        with self._opened(None) as opened:
            slot_id = add_slot(opened, unlock, label, datetime.now(UTC), only)
            failures = self._on_copies(lambda copy: _follow(opened, copy))
            return KeyOutcome((slot_id.hex(),), opened.keys.current_epoch, (), (), failures)

    @contextmanager
    def _opened(self, repository: str | None) -> Iterator[Repository]:
        with bootstrap.opened_repository(self.config, repository, self.on_retry) as opened:
            yield opened

    def _on_copies(self, change: Callable[[Repository], None]) -> tuple[tuple[str, HoldfastError], ...]:
        failures = []
        for copy in self.config.repositories[1:]:
            try:
                with self._opened(copy.name) as opened:
                    change(opened)
            except RepositoryAbsent:
                continue  # not made yet; init will bring every slot along
            except HoldfastError as error:
                failures.append((copy.name, error))
        return tuple(failures)


def _follow(origin: Repository, copy: Repository) -> None:
    carry_repository(origin, copy.store, datetime.now(UTC))


def _remove_there(copy: Repository, slots: Sequence[SlotId]) -> None:
    there = {slot.id for slot in list_slots(copy)}
    for slot_id in slots:
        if slot_id in there:
            remove_slot(copy, slot_id)


def _found(text: str, slots: Sequence[SlotId]) -> SlotId:
    beginning = text.lower()
    matching = [slot for slot in slots if slot.hex().startswith(beginning)]
    if re.fullmatch(r"[0-9a-f]{1,32}", beginning) is None or not matching:
        raise ConfigInvalid(f"there is no key slot {text}", hint="`holdfast key list` shows those there are.")
    if len(matching) > 1:
        raise ConfigInvalid(f"{text} is the beginning of {len(matching)} key slots", hint="Give more of the id.")
    return matching[0]
