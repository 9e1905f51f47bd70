"""``init``, ``config``, ``doctor`` and ``key`` as processes, with repositories in folders and no server at all."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
import yaml
from tests.acceptance.cli.cli_program import PASSPHRASE, Program


def slots(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "slots").iterdir())


def every_file(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_init_writes_a_configuration_makes_repositories_and_prints_the_kit(program: Program) -> None:
    ended = program.init("--repository", f"away={program.folder / 'away'}")
    written = yaml.safe_load((program.folder / "holdfast.yaml").read_text())
    assert written["application"] == "shop"
    assert list(written["repositories"]) == ["primary", "away"]
    assert written["keys"] == {"passphrase": {"env": "HOLDFAST_PASSPHRASE"}}
    identities = {(program.folder / name / "identity").read_bytes() for name in ("repository", "away")}
    assert len(identities) == 1
    assert "RECOVERY KIT of shop" in ended.out
    assert "rescue/holdfast_rescue.py REPOSITORY_FOLDER SOURCE BACKUP_ID TARGET_FOLDER" in ended.out
    assert str(program.folder / "repository") in ended.out


def test_init_again_changes_nothing(program: Program) -> None:
    program.init()
    before = every_file(program.folder)
    assert json.loads(program.done("init", "--json").out)["config_written"] is False
    assert every_file(program.folder) == before


def test_init_with_a_configuration_makes_the_repository_that_is_missing(program: Program) -> None:
    program.init("--repository", f"away={program.folder / 'away'}")
    (program.folder / "away").rename(program.folder / "lost")
    made = {row["name"]: row["made"] for row in program.done("init", "--json").document["repositories"]}
    assert made == {"primary": False, "away": True}
    assert slots(program.folder / "away") == slots(program.folder / "repository")


def test_init_brings_the_first_repository_back_from_its_copy(program: Program) -> None:
    program.init("--repository", f"away={program.folder / 'away'}")
    (program.folder / "repository").rename(program.folder / "lost")
    program.done("init")
    assert (program.folder / "repository/identity").read_bytes() == (program.folder / "away/identity").read_bytes()


def test_init_never_overwrites_what_the_options_would_change(program: Program) -> None:
    program.init()
    text = (program.folder / "holdfast.yaml").read_text()
    ended = program.done("init", "--application", "other", "--repository", program.folder / "second")
    assert "exists and stays as it is" in ended.err
    assert (program.folder / "holdfast.yaml").read_text() == text
    assert not (program.folder / "second").exists()


def test_init_with_a_wrong_passphrase_ends_with_12_and_adds_no_slot(program: Program) -> None:
    program.init()
    before = every_file(program.folder / "repository")
    for words in (
        ("init",),
        ("init", "--config", "other.yaml", "--application", "shop", "--repository", program.folder / "repository"),
    ):
        assert program.run(*words, variables={"HOLDFAST_PASSPHRASE": "quite another one"}).code == 12
    assert every_file(program.folder / "repository") == before
    assert not (program.folder / "other.yaml").exists()


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ((), "--application"),
        (("--application", "shop"), "--repository"),
        (("--application", "shop", "--repository", "backups"), "--passphrase-file"),
    ],
)
def test_init_without_a_terminal_says_which_option_is_missing(
    program: Program, given: tuple[str, ...], missing: str
) -> None:
    ended = program.run("init", *given, variables={"HOLDFAST_PASSPHRASE": None})
    assert ended.code == 2
    assert missing in ended.err
    assert not list(program.folder.iterdir())


@pytest.mark.parametrize("passphrase", ["short", "aaaaaaaaaaaa", "password123", "1234567890"])
def test_init_refuses_a_weak_passphrase_and_makes_nothing(program: Program, passphrase: str) -> None:
    words = ("init", "--application", "shop", "--repository", program.folder / "repository")
    ended = program.run(*words, variables={"HOLDFAST_PASSPHRASE": passphrase})
    assert ended.code == 2
    assert "too weak" in ended.err
    assert passphrase not in ended.err
    assert not (program.folder / "repository").exists()


def test_init_with_a_generated_key_file_prints_it_and_needs_no_passphrase(program: Program) -> None:
    without = Program(program.folder, {"HOLDFAST_PASSPHRASE": ""})
    ended = without.init("--new-key-file", "secret.key")
    key = program.folder / "secret.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert key.read_text().strip() in ended.out
    assert without.done("key", "list", "--json").document[0]["kind"] == "keyfile"


def test_a_lost_key_file_of_an_existing_repository_is_12_and_not_replaced(program: Program) -> None:
    without = Program(program.folder, {"HOLDFAST_PASSPHRASE": ""})
    without.init("--new-key-file", "secret.key")
    (program.folder / "secret.key").rename(program.folder / "elsewhere")
    assert without.run("init").code == 12
    assert not (program.folder / "secret.key").exists()


def test_init_keeps_a_sources_password_out_of_the_file_and_says_where_it_goes(program: Program) -> None:
    ended = program.init(source="orders=postgresql://backup:hunter2hunter2@db.internal/shop")
    text = (program.folder / "holdfast.yaml").read_text()
    assert "hunter2" not in text + ended.out + ended.err
    assert "HOLDFAST_ORDERS_PASSWORD" in text
    assert "HOLDFAST_ORDERS_PASSWORD" in ended.err


def test_init_detects_a_server_from_the_environment(program: Program) -> None:
    found = Program(program.folder, {"PGHOST": "db.internal", "PGUSER": "backup", "PGPASSWORD": "hunter2"})
    found.done("init", "--application", "shop", "--repository", "backups")
    source = yaml.safe_load((program.folder / "holdfast.yaml").read_text())["sources"]["postgres"]
    assert source == {"kind": "postgres", "dsn": "host=db.internal user=backup", "password": {"env": "PGPASSWORD"}}


def test_init_refuses_a_passphrase_file_that_is_not_there(program: Program) -> None:
    words = ("init", "--application", "shop", "--repository", "backups", "--passphrase-file", "absent")
    assert program.run(*words).code == 2


def test_a_missing_passphrase_variable_is_2(program: Program) -> None:
    program.init()
    for words in (("backups",), ("backup",), ("check",), ("restore",), ("key", "list"), ("runs",)):
        ended = program.run(*words, "--json", variables={"HOLDFAST_PASSPHRASE": None})
        assert (ended.code, ended.error["exit_code"]) == (2, 2), words
        assert "HOLDFAST_PASSPHRASE" in ended.error["message"]


def test_a_wrong_passphrase_is_12(program: Program) -> None:
    program.init()
    ended = program.run("backups", "--json", variables={"HOLDFAST_PASSPHRASE": "quite another one"})
    assert ended.code == 12
    assert ended.error["kind"] == "key_invalid"


def test_no_repository_is_10(program: Program) -> None:
    program.init()
    (program.folder / "repository").rename(program.folder / "lost")
    for words in (("backups",), ("backup",), ("check",), ("restore",), ("key", "list")):
        assert program.run(*words).code == 10, words


def test_a_damaged_identity_is_13(program: Program) -> None:
    program.init()
    identity = program.folder / "repository/identity"
    data = bytearray(identity.read_bytes())
    data[-1] ^= 1
    identity.chmod(0o600)
    identity.write_bytes(data)
    assert program.run("check").code == 13


def test_config_check_names_line_and_key_of_an_unknown_one(program: Program) -> None:
    program.init()
    path = program.folder / "holdfast.yaml"
    path.write_text(path.read_text().replace("kind: postgres, dsn:", "kind: postgres, dns:").replace("url:", "url:"))
    for words in (("config", "check"), ("backups",), ("doctor",)):
        ended = program.run(*words)
        assert ended.code == 2, words
        assert "holdfast.yaml:" in ended.err
        assert "dns" in ended.err
    assert program.run("config", "check", "--json").error["kind"] == "config_invalid"


def test_config_check_works_offline_and_lists_what_it_read(program: Program) -> None:
    program.init()
    (program.folder / "repository").rename(program.folder / "lost")
    found = program.done("config", "check", "--json").document
    assert (found["application"], found["repositories"], found["sources"]) == ("shop", ["primary"], ["orders"])


def test_config_schema_prints_a_schema_without_any_configuration(program: Program) -> None:
    assert program.done("config", "schema").document["title"] == "holdfast.yaml"


def test_doctor_without_a_server_names_what_is_broken_and_ends_with_1(program: Program) -> None:
    program.init()
    ended = program.run("doctor", "--json")
    assert ended.code == 1
    found = {row["subject"]: row["findings"] for row in ended.document["subjects"]}
    assert {row["severity"] for row in found["repository primary"]} == {"ok"}
    assert found["source orders"][0]["severity"] == "broken"
    assert ended.document["broken"] >= 1


def test_doctor_leaves_the_repository_as_it_was(program: Program) -> None:
    program.init()
    before = every_file(program.folder / "repository")
    program.run("doctor")
    assert every_file(program.folder / "repository") == before


def test_doctor_tells_an_absent_repository_and_does_not_make_its_folder(program: Program) -> None:
    program.init()
    (program.folder / "repository").rename(program.folder / "lost")
    ended = program.run("doctor")
    assert ended.code == 1
    assert "holdfast init" in ended.out
    assert not (program.folder / "repository").exists()


def test_doctor_tells_two_repositories_that_are_no_copies_of_each_other(program: Program) -> None:
    program.init("--repository", f"away={program.folder / 'away'}")
    (program.folder / "away").rename(program.folder / "lost")
    other = Program(program.folder / "elsewhere")
    other.folder.mkdir()
    other.done("init", "--application", "shop", "--repository", program.folder / "away")
    broken = [
        finding["message"]
        for row in program.run("doctor", "--json").document["subjects"]
        for finding in row["findings"]
        if finding["severity"] == "broken"
    ]
    assert "away holds another repository than primary" in broken


def test_a_second_passphrase_opens_until_its_slot_is_removed(program: Program) -> None:
    program.init("--repository", f"away={program.folder / 'away'}")
    (program.folder / "second").write_text("a second pass phrase\n")
    added = program.done("key", "add", "--label", "safe", "--passphrase-file", "second", "--json").document
    with_second = Program(program.folder, {"HOLDFAST_PASSPHRASE": "a second pass phrase"})
    assert with_second.done("backups", "--repository", "away", "--json").document == []
    listed = {row["id"]: row for row in program.done("key", "list", "--json").document}
    assert len(listed) == 2
    assert listed[added["slots"][0]]["opens"] is False
    program.done("key", "remove", added["slots"][0][:10], "--yes")
    assert with_second.run("backups").code == 12
    assert with_second.run("backups", "--repository", "away").code == 12


def test_removing_a_key_slot_without_a_terminal_needs_yes(program: Program) -> None:
    program.init()
    slot = slots(program.folder / "repository")[0]
    assert program.run("key", "remove", slot).code == 2
    assert slots(program.folder / "repository") == [slot]


def test_the_last_key_slot_is_never_removed(program: Program) -> None:
    program.init()
    slot = slots(program.folder / "repository")[0]
    assert program.run("key", "remove", slot, "--yes").code == 1
    assert slots(program.folder / "repository") == [slot]


def test_an_unknown_key_slot_is_2(program: Program) -> None:
    program.init()
    assert program.run("key", "remove", "0123456789abcdef", "--yes").code == 2


def test_rotation_names_the_slots_left_behind_and_ends_with_0(program: Program) -> None:
    program.init("--repository", f"away={program.folder / 'away'}")
    (program.folder / "second").write_text("a second pass phrase\n")
    added = program.done("key", "add", "--passphrase-file", "second", "--json").document["slots"]
    rotated = program.done("key", "rotate", "--json").document
    assert rotated["epoch"] == 2
    assert rotated["left_behind"] == added
    assert slots(program.folder / "away") == slots(program.folder / "repository")
    assert program.done("backups", "--json").document == []


def test_an_exported_key_file_opens_the_repository(program: Program) -> None:
    program.init()
    ended = program.done("key", "export", "safe.key")
    key = program.folder / "safe.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert "RECOVERY KIT" in ended.out
    assert key.read_text().strip() not in ended.out
    config = program.folder / "holdfast.yaml"
    config.write_text(config.read_text().replace("{passphrase: {env: HOLDFAST_PASSPHRASE}}", '{file: "safe.key"}'))
    assert program.done("backups", "--json").document == []
    assert program.run("key", "export", "safe.key").code == 1


def test_a_key_of_one_source_opens_no_more_than_that(program: Program) -> None:
    program.init("--source", "ledger=postgresql://backup@127.0.0.1:1/ledger")
    program.done("key", "add", "--new-key-file", "orders.key", "--source", "orders")
    config = program.folder / "holdfast.yaml"
    config.write_text(config.read_text().replace("{passphrase: {env: HOLDFAST_PASSPHRASE}}", '{file: "orders.key"}'))
    assert program.done("backups", "orders", "--json").document == []
    assert program.run("backups", "ledger").code == 12
    assert program.run("key", "rotate").code == 12


def test_no_command_prints_the_passphrase(program: Program) -> None:
    # Program.run looks at every output for it; here are the commands that come nearest to printing it.
    program.init()
    for words in (("init", "--verbose"), ("doctor", "--verbose"), ("key", "list", "--verbose"), ("config", "check")):
        program.run(*words)
    broken = {"HOLDFAST_STATE_DIR": "/dev/null/nowhere", "HOLDFAST_PASSPHRASE": PASSPHRASE}
    program.run("backups", "--json", variables=broken)
