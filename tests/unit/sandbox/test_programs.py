"""Finding PostgreSQL's programs: what wins, what is said when something is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.model.errors import ConfigInvalid, NotFound
from holdfast.sandbox import PostgresPrograms, find_postgres, newest_postgres, postgres_programs
from holdfast.sandbox import programs as programs_module


def make_programs(folder: Path, version: str) -> Path:
    folder.mkdir(parents=True)
    for name in ("postgres", "initdb"):
        (folder / name).write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def usual_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(programs_module, "USUAL_PLACES", (f"{tmp_path}/usual/*/bin",))
    return tmp_path / "usual"


def test_every_version_is_found_once_the_newest_first(usual_place: Path, tmp_path: Path) -> None:
    make_programs(usual_place / "15" / "bin", "15.20 (Debian 15.20-0+deb12u1)")
    make_programs(usual_place / "18" / "bin", "18.6")
    make_programs(tmp_path / "path", "18.1")

    found = find_postgres(environment={"PATH": str(tmp_path / "path")})

    assert [(programs.major, programs.version) for programs in found] == [(18, "18.6"), (15, "15.20")]


def test_an_extra_folder_wins_over_the_usual_places(usual_place: Path, tmp_path: Path) -> None:
    make_programs(usual_place / "16" / "bin", "16.1")
    extra = make_programs(tmp_path / "extra", "16.2")

    assert postgres_programs(16, [extra], {}).version == "16.2"


def test_extensions_are_found_beside_the_programs(tmp_path: Path) -> None:
    folder = make_programs(tmp_path / "17" / "bin", "17.1")
    extensions = tmp_path / "17" / "share" / "extension"
    extensions.mkdir(parents=True)
    (extensions / "hstore.control").touch()
    assert postgres_programs(17, [folder], {}).extensions == {"hstore"}


def test_the_environment_wins_over_everything(usual_place: Path, tmp_path: Path) -> None:
    extra = make_programs(tmp_path / "extra", "16.2")
    named = make_programs(tmp_path / "named", "16.3")

    assert postgres_programs(16, [extra], {"HOLDFAST_POSTGRES_BIN_16": str(named)}).version == "16.3"


def test_the_environment_naming_another_version_is_refused(usual_place: Path, tmp_path: Path) -> None:
    named = make_programs(tmp_path / "named", "15.1")

    with pytest.raises(ConfigInvalid, match=r"HOLDFAST_POSTGRES_BIN_16 names .* PostgreSQL 16"):
        find_postgres([], {"HOLDFAST_POSTGRES_BIN_16": str(named)})


def test_programs_that_do_not_run_here_are_passed_over(usual_place: Path) -> None:
    folder = make_programs(usual_place / "17" / "bin", "17.1")
    (folder / "postgres").write_text("#!/bin/sh\nexit 127\n")

    assert find_postgres([], {}) == ()


def test_a_missing_version_names_its_package(usual_place: Path) -> None:
    with pytest.raises(NotFound, match="PostgreSQL 17") as caught:
        postgres_programs(17, [], {})
    assert "apt-get install postgresql-17" in caught.value.hint


def test_no_server_at_all_names_the_package(usual_place: Path) -> None:
    with pytest.raises(NotFound, match="PostgreSQL 15 to 18") as caught:
        newest_postgres([], {})
    assert "apt-get install postgresql " in caught.value.hint


def test_an_unsupported_version_is_never_the_newest(usual_place: Path) -> None:
    make_programs(usual_place / "14" / "bin", "14.9")
    make_programs(usual_place / "16" / "bin", "16.1")
    make_programs(usual_place / "19" / "bin", "19devel")

    assert newest_postgres([], {}).major == 16


@pytest.mark.parametrize(
    ("name", "package"),
    [("pgbench", "postgresql-16"), ("pg_dump", "postgresql-client-16"), ("initdb", "postgresql-16")],
)
def test_a_missing_program_names_the_package_that_holds_it(tmp_path: Path, name: str, package: str) -> None:
    with pytest.raises(NotFound, match=name) as caught:
        PostgresPrograms(16, "16.1", tmp_path).path(name)
    assert f"apt-get install {package})" in caught.value.hint
