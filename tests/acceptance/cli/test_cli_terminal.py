"""What is asked, and shown, where somebody sits at a terminal."""

from __future__ import annotations

import shutil

import yaml
from tests.acceptance.cli.cli_program import PASSPHRASE, Program
from tests.acceptance.cli.cli_terminal import Terminal
from tests.servers import PostgresServers

MAJOR = 17


def test_init_asks_for_what_is_missing_and_never_shows_the_passphrase(program: Program) -> None:
    asked = Program(program.folder, {"HOLDFAST_PASSPHRASE": ""})
    with Terminal(asked, "init") as terminal:
        terminal.answer("What is the application called", "shop")
        terminal.answer("Where do backups go", "backups")
        terminal.answer("What is to be protected", "orders=postgresql://backup@db.internal/shop")
        terminal.answer("A passphrase for the repositories", PASSPHRASE)
        terminal.answer("The same again", PASSPHRASE)
        assert terminal.end() == 0, terminal.said
        assert PASSPHRASE not in terminal.said
        assert "RECOVERY KIT of shop" in terminal.said
    written = yaml.safe_load((program.folder / "holdfast.yaml").read_text())
    assert written["repositories"] == {"primary": {"url": f"file://{program.folder}/backups"}}
    assert program.done("backups", "--json").document == []


def test_an_empty_passphrase_at_the_terminal_generates_a_key_file(program: Program) -> None:
    asked = Program(program.folder, {"HOLDFAST_PASSPHRASE": "", "DATABASE_URL": "postgresql://backup@db.internal/shop"})
    with Terminal(asked, "init", "--application", "shop", "--repository", "backups") as terminal:
        terminal.answer("Protect postgres at postgresql://backup@db.internal/shop", "no")
        terminal.answer("What is to be protected", "")
        terminal.answer("A passphrase for the repositories", "")
        assert terminal.end() == 0, terminal.said
        assert (program.folder / "holdfast.key").read_text().strip() in terminal.said
    assert asked.done("key", "list", "--json").document[0]["kind"] == "keyfile"


def test_removing_a_key_slot_is_asked_and_may_be_declined(program: Program) -> None:
    program.init()
    slot = program.done("key", "list", "--json").document[0]["id"]
    with Terminal(program, "key", "remove", slot) as terminal:
        terminal.answer("Remove key slot", "no")
        assert terminal.end() == 0
    assert [row["id"] for row in program.done("key", "list", "--json").document] == [slot]


def test_a_backup_shows_its_progress_and_a_delta_asks_for_the_applications_name(
    postgres_servers: PostgresServers,
) -> None:
    server = postgres_servers.start_copy(MAJOR)
    program = Program(postgres_servers.new_folder("cli"))
    program.init(source=f"orders=postgresql://postgres@127.0.0.1:{server.port}/postgres")
    with Terminal(program, "backup") as terminal:
        assert terminal.end() == 0
        assert "orders: backing up" in terminal.said
        assert "orders: backup " in terminal.said
    postgres_servers.drop(server)
    target = program.folder / "restored"
    target.mkdir()
    (target / "stranger").touch()
    for answer, code in (("other", 2), ("shop", 0)):
        with Terminal(program, "restore", "--into", target, "--delta") as terminal:
            terminal.answer("Type the application's name", answer)
            assert terminal.end() == code, terminal.said
        assert (target / "stranger").exists() is (code == 2)
    shutil.rmtree(target)
