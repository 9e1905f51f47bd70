"""Client programs are found by version, end with their caller, and what they say becomes an error with a hint."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.model.errors import Denied, HoldfastError, Interrupted, NotFound, OutOfSpace, SourceFailed, Unavailable
from holdfast.sources.postgres.logical.children import Child, ClientAccess, child_failed, run_child
from holdfast.sources.postgres.logical.private_files import private_folder
from holdfast.sources.postgres.logical.tools import PROGRAMS, clients_for, find_clients


class _Session:
    """Stands for a connection: only the parameters it was made with are asked for."""

    def __init__(self, **params: str) -> None:
        self._params = params

    def resolved(self) -> dict[str, str]:
        return dict(self._params)


@pytest.fixture
def access() -> Iterator[ClientAccess]:
    with ClientAccess(_Session(host="db", port="5432", user="me"), "pa:ss\\word") as opened:  # type: ignore[arg-type]
        yield opened


def make_clients(folder: Path, version: str) -> Path:
    folder.mkdir()
    for name in PROGRAMS:
        path = folder / name
        path.write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")
        path.chmod(0o755)
    return folder


def script(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def test_the_oldest_clients_that_are_not_older_than_the_server_are_chosen(tmp_path: Path) -> None:
    environment = {
        f"HOLDFAST_POSTGRES_BIN_{major}": str(make_clients(tmp_path / str(major), f"{major}.2 (Debian {major}.2-1)"))
        for major in (95, 97)
    }
    chosen = clients_for(96, environment)
    assert (chosen.major, chosen.version, chosen.folder) == (97, "97.2", tmp_path / "97")
    assert {95, 97} <= {programs.major for programs in find_clients(environment)}


def test_clients_that_are_too_old_are_told_with_the_package(tmp_path: Path) -> None:
    folder = make_clients(tmp_path / "old", "14.1")
    with pytest.raises(NotFound, match=r"PostgreSQL 18 or newer are not in .*old \(found: 14.1\)") as caught:
        clients_for(18, named=folder)
    assert "postgresql-client-18" in caught.value.hint


def test_half_an_installation_is_none(tmp_path: Path) -> None:
    folder = make_clients(tmp_path / "half", "18.1")
    (folder / "pg_dumpall").unlink()
    assert find_clients(named=folder) == ()


def test_secrets_lie_in_memory_only_and_children_read_them(access: ClientAccess) -> None:
    assert all("pa:ss" not in value for value in access.environment.values())
    assert "pa:ss" not in access.address("shop")
    assert list(access.folder.iterdir()) == []
    assert {os.fstat(fd).st_mode & 0o777 for fd in access.files} == {0o600}
    read = bytearray()
    text = (
        "import os\ns = open(os.environ['PGSERVICEFILE']).read()\n"
        "print(s, open(s.split('passfile=')[1].strip()).read())"
    )
    run_child(script(text), access, "reading", take=read.extend)
    service, _, password = read.decode().partition("passfile=")
    assert "user=me" in service
    assert "pa:ss" not in service
    assert "*:*:*:*:pa\\:ss\\\\word\n" in password


def test_the_files_are_gone_afterwards() -> None:
    with ClientAccess(_Session(host="db"), "secret") as opened:  # type: ignore[arg-type]
        folder, files = opened.folder, opened.files
        assert files
    assert not folder.exists()
    for fd in files:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_folders_of_killed_runs_are_removed_and_those_of_live_ones_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    text = (
        "import os, signal\nfrom holdfast.sources.postgres.logical.private_files import private_folder\n"
        "with private_folder() as folder:\n    (folder / 'schema.dump').write_text('x')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    for _ in range(2):
        subprocess.run(script(text), env={**os.environ, "TMPDIR": str(tmp_path)}, check=False)
    with private_folder() as alive:
        killed = [path for path in tmp_path.iterdir() if path != alive]
        assert len(killed) == 2
        for path in tmp_path.iterdir():
            os.utime(path, (0, 0))
        with private_folder() as mine:
            assert sorted(tmp_path.iterdir()) == sorted([alive, mine])


def test_nothing_of_the_environment_leads_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGHOST", "PGPASSWORD", "PGOPTIONS", "PGSERVICE", "PGCLIENTENCODING"):
        monkeypatch.setenv(name, "elsewhere")
    with ClientAccess(_Session(host="db")) as opened:  # type: ignore[arg-type]
        assert "elsewhere" not in opened.environment.values()


def test_a_database_with_an_odd_name_is_quoted(access: ClientAccess) -> None:
    assert access.address("it's \\ odd = x") == "service=holdfast dbname='it\\'s \\\\ odd = x'"


def test_what_is_given_comes_back(access: ClientAccess) -> None:
    taken = bytearray()
    text = "import sys, shutil; d = sys.stdin.buffer.read(); sys.stderr.write('said'); sys.stdout.buffer.write(d)"
    said = run_child(script(text), access, "copying", give=[b"x" * 3_000_000, b"y"], take=taken.extend)
    assert bytes(taken) == b"x" * 3_000_000 + b"y"
    assert said == "said"


def test_a_child_that_fails_is_told_in_its_own_words_without_secrets(access: ClientAccess) -> None:
    text = r"import sys; sys.stderr.write('cannot do it with pa:ss\\word'); sys.exit(3)"
    with pytest.raises(SourceFailed, match=r"copying: python.* ended with 3: cannot do it with \*\*\*"):
        run_child(script(text), access, "copying")


def test_a_child_that_is_killed_is_told(access: ClientAccess) -> None:
    with pytest.raises(SourceFailed, match="ended by signal 9"):
        run_child(script("import os; os.kill(os.getpid(), 9)"), access, "copying")


def test_a_child_with_its_own_children_is_gone_after_a_failure(access: ClientAccess) -> None:
    text = "import subprocess, sys; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); p.wait()"
    with Child(script(text), access, "waiting") as child:
        grandchild = int(next(iter(child.take())))
    deadline = time.monotonic() + 10
    while Path(f"/proc/{grandchild}/stat").exists() and " Z " not in Path(f"/proc/{grandchild}/stat").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


@pytest.mark.parametrize("does", ["take", "give", "finish"])
def test_every_wait_for_a_child_ends_when_asked_to_stop(access: ClientAccess, does: str) -> None:
    stop = threading.Event()
    with Child(script("import time; time.sleep(60)"), access, "waiting", stop.is_set) as child:
        threading.Timer(0.2, stop.set).start()
        with pytest.raises(Interrupted, match="stopped while waiting"):
            list(child.take()) if does == "take" else child.give([b"x"] * 200_000) if does == "give" else child.finish()


def test_what_a_child_says_is_bounded_and_its_last_words_are_kept(access: ClientAccess) -> None:
    text = "import sys; sys.stderr.write('noise ' * 100000 + 'the reason'); sys.exit(1)"
    with pytest.raises(SourceFailed, match=r"the reason$") as caught:
        run_child(script(text), access, "copying")
    assert len(caught.value.message) < 20_000


def test_the_first_output_is_waited_for_and_stays(access: ClientAccess) -> None:
    with Child(script("print('a'); print('b')"), access, "reading") as child:
        child.begin()
        assert b"".join(child.take()) == b"a\nb\n"
        child.finish()
    with Child(script("import sys; sys.exit(2)"), access, "reading") as child, pytest.raises(SourceFailed):
        child.begin()


@pytest.mark.parametrize(
    ("said", "kind", "hint"),
    [
        ('ERROR: 42501: query would be affected by row-level security policy for table "t"', Denied, "BYPASSRLS"),
        ("ERROR:  permission denied for table secret", Denied, "doctor"),
        ("Erreur : 42501: droit refuse pour la table t", Denied, "doctor"),
        ("FATAL:  password authentication failed for user", Denied, "password"),
        ("ERROR:  canceling statement due to lock timeout", Unavailable, "pg_locks"),
        ('could not write to file "base/pgsql_tmp": No space left on device', OutOfSpace, "Make room"),
        ("server closed the connection unexpectedly", Unavailable, "log"),
        ("FATAL:  terminating connection due to administrator command", Unavailable, "log"),
        ("something else", SourceFailed, "log"),
    ],
)
def test_what_is_said_decides_which_error_it_is(said: str, kind: type[HoldfastError], hint: str) -> None:
    error = child_failed("psql", 1, said, "reading")
    assert type(error) is kind
    assert said in error.message
    assert hint in error.hint


def test_a_signal_is_not_taken_for_an_answer() -> None:
    assert "signal 15" in child_failed("psql", -signal.SIGTERM, "permission denied", "reading").message
