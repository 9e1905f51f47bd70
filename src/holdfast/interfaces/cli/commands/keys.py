"""``holdfast key``: what opens the repositories."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.interfaces.cli.asking import agree, ask_new_passphrase
from holdfast.interfaces.cli.call import Call, Section, command
from holdfast.interfaces.cli.completion import RepositoryOption, complete_source
from holdfast.interfaces.cli.failures import PartlyDone, error_view, tell_error
from holdfast.interfaces.cli.groups import new_group
from holdfast.interfaces.cli.output import clean, say, say_json, say_table, tell
from holdfast.interfaces.cli.progress import looking
from holdfast.interfaces.cli.shown import time_text
from holdfast.model.errors import ConfigInvalid

if TYPE_CHECKING:
    from holdfast.application.keys import Keys
    from holdfast.application.results import KeyOutcome
    from holdfast.model.secrets import Secret

LabelOption = Annotated[
    str | None, typer.Option("--label", metavar="TEXT", help="What the slot is for. [the host's name]")
]


def add_to(app: typer.Typer) -> None:
    """Add the family of commands."""
    group = new_group("Passphrases and key files that open the repositories.")
    command(group, "list")(list_slots)
    command(group, "add")(add)
    command(group, "remove")(remove)
    command(group, "rotate")(rotate)
    command(group, "export")(export)
    app.add_typer(group, name="key", rich_help_panel=Section.LOOK_AFTER)


def list_slots(call: Call, repository: RepositoryOption = None) -> None:
    """List key slots.

    The label shows where the secret at hand opens one.
    """
    slots = _keys(call).slots(repository)
    if call.json:
        from holdfast.interfaces.cli.views import slot_view

        say_json([slot_view(slot) for slot in slots])
        return
    zone = call.config().zone
    rows = [
        [
            slot.id if call.verbose else slot.id[:12],
            slot.kind,
            slot.scope,
            time_text(slot.created_at, zone),
            "yes" if slot.opens else "no",
            ", ".join(str(epoch) for epoch in slot.epochs) if slot.opens else "?",
            slot.label if slot.label is not None else "?",
        ]
        for slot in slots
    ]
    say_table(["id", "kind", "scope", "since", "opens now", "epochs", "label"], rows)


def add(
    call: Call,
    label: LabelOption = None,
    passphrase_file: Annotated[
        Path | None, typer.Option("--passphrase-file", metavar="PATH", help="A file with the new passphrase.")
    ] = None,
    new_key_file: Annotated[
        Path | None, typer.Option("--new-key-file", metavar="PATH", help="Generate a key file there.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--source", metavar="NAME", help="Let it open this source's part alone.", autocompletion=complete_source
        ),
    ] = None,
) -> int:
    """Add a passphrase or key file that opens the repositories.

    With --source it opens that source's part alone.
    """
    keys = _keys(call)
    words = label or socket.gethostname()
    if new_key_file is not None:
        if passphrase_file is not None:
            raise ConfigInvalid("--passphrase-file and --new-key-file exclude each other", hint="Give one of them.")
        outcome = keys.add_key_file(new_key_file.absolute(), words, source)
        said = f"the new key file is {new_key_file.absolute()}: copy it away"
    else:
        outcome = keys.add_passphrase(_new_passphrase(call, passphrase_file), words, source)
        said = "the new passphrase opens the repositories from now on"
    return _show(call, outcome, f"key slot {outcome.slots[0]} added; {said}")


def remove(
    call: Call,
    slot: Annotated[str, typer.Argument(metavar="ID", help="The slot's id, as key list shows it; may be shortened.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> int:
    """Remove a key slot.

    Its passphrase or key file opens nothing any more.

    Whoever kept a copy of the slot, or has read the keys through it, is stopped only by `holdfast key rotate`.
    """
    keys = _keys(call)
    if not yes:
        if not call.may_ask:
            raise ConfigInvalid(
                "nobody is here to agree that the key slot is removed", hint="Add --yes to remove it without asking."
            )
        if not agree(clean(f"Remove key slot {slot}? What it opened with opens nothing any more"), default=False):
            tell("Nothing was changed.")
            return 0
    outcome = keys.remove(slot)
    return _show(call, outcome, f"key slot {outcome.slots[0]} removed")


def rotate(call: Call) -> int:
    """Begin a new epoch of keys.

    What is written from now on opens only with the secrets at hand. Slots of other secrets are left behind, and named.
    """
    outcome = _keys(call).rotate()
    code = _show(call, outcome, f"epoch {outcome.epoch} begun; new slots: {', '.join(outcome.slots)}")
    if outcome.left_behind and not call.json:
        tell(f"notice: left behind, because their secrets are not at hand: {', '.join(outcome.left_behind)}")
        tell("notice: they open what was written before; remove them, or add them anew with holdfast key add")
    return code


def export(
    call: Call,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Where to write the key file.")],
    label: LabelOption = None,
) -> int:
    """Write a key file to keep elsewhere, and print the kit.

    The key file is a new one; it opens the repositories by a key slot of its own.
    """
    keys = _keys(call)
    outcome = keys.add_key_file(path.absolute(), label or f"exported on {socket.gethostname()}")
    return _show(call, outcome, f"key slot {outcome.slots[0]} added", keys.kit(path.absolute()))


def _keys(call: Call) -> Keys:
    from holdfast.application.keys import Keys

    return Keys(call.config(), looking(call).on_retry)


def _new_passphrase(call: Call, file: Path | None) -> Secret:
    from holdfast.config.secret_references import SecretReference, fetch_secret

    if file is not None:
        return fetch_secret(SecretReference(file=str(file)), "the new passphrase", call.environment, Path.cwd())
    passphrase = ask_new_passphrase("The new passphrase") if call.may_ask else None
    if passphrase is None:
        raise ConfigInvalid("there is no new passphrase", hint="Give --passphrase-file PATH or --new-key-file PATH.")
    return passphrase


def _show(call: Call, outcome: KeyOutcome, text: str, kit: str | None = None) -> int:
    """Tell what was done, and return 3 where a copy of the repository was not brought along."""
    if call.json:
        say_json(
            {
                "slots": list(outcome.slots),
                "epoch": outcome.epoch,
                "left_behind": list(outcome.left_behind),
                "failures": [{"repository": name, "error": error_view(error)} for name, error in outcome.failures],
                "kit": kit,
            }
        )
    elif not call.quiet:
        say(clean(text))
        if kit is not None:
            say()
            say(kit)
    if not outcome.failures:
        return 0
    if not call.json:
        for name, error in outcome.failures:
            tell_error(error, as_json=False, about=f"repository {name}")
    partly = PartlyDone(
        f"partly done: {', '.join(name for name, _ in outcome.failures)} still has the slots it had",
        hint="When it can be reached again, run `holdfast init`, which brings slots along, or the command again.",
    )
    tell_error(partly, as_json=call.json)
    return partly.exit_code
