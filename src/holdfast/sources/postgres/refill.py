"""Turns a physical backup into a plan for a data folder that PostgreSQL starts from, alone."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from holdfast.model.documents import JsonObject
from holdfast.model.errors import IntegrityBroken
from holdfast.sources.port import BESIDE_PREFIX, EntryType, FileStep, FolderPlan, FolderTarget, LogFile, StoredEntry
from holdfast.sources.postgres.details import BackupDetails, Tablespace
from holdfast.sources.postgres.locate import Target
from holdfast.sources.postgres.recovery import auto_conf, isolation_settings, raised_minimums, recovery_settings
from holdfast.sources.postgres.refill_configuration import (
    AUTO_FILE,
    HBA_CONTENT,
    HBA_FILE,
    IDENT_CONTENT,
    IDENT_FILE,
    MAIN_FILE,
    FoundConfiguration,
    minimal_main_file,
    portable_settings,
    read_configuration,
)
from holdfast.sources.postgres.refill_host import host_changes
from holdfast.sources.postgres.refill_locations import PlacedTablespace, absolute, beside, place_tablespaces
from holdfast.sources.postgres.refill_log import plan_log, recovery_target, refuse_other_base
from holdfast.sources.postgres.refill_notes import backup_notes
from holdfast.sources.postgres.refill_target import refuse_folder, refuse_other_system
from holdfast.sources.postgres.refill_wal import STATUS_FOLDER, WAL_FOLDER, choose_wal

CONTROL_FILE = "global/pg_control"
LABEL_FILE = "backup_label"
"""Without it the server would start from the checkpoint in pg_control, and the copy would be broken in silence."""
SIGNAL_FILE = "recovery.signal"
MAP_FILE = "tablespace_map"
"""Left out: the server would link every tablespace to the source's place again."""
TABLESPACES_FOLDER = "pg_tblspc"
SETTINGS_PREFIX = f"{BESIDE_PREFIX}settings/"

NEVER_RESTORED = frozenset(
    (
        AUTO_FILE,  # Made anew, from the old one.
        SIGNAL_FILE,
        "standby.signal",
        "postmaster.pid",
        "postmaster.opts",
        MAP_FILE,
    )
)
EMPTIED_FOLDERS = frozenset(
    ("pg_dynshmem", "pg_notify", "pg_replslot", "pg_serial", "pg_snapshots", "pg_stat_tmp", "pg_subtrans")
)
"""Folders whose content belongs to the running source: slots that nobody here would advance (B14), locks, queues."""

NEEDED_FOLDERS = (*sorted(EMPTIED_FOLDERS - {"pg_stat_tmp"}), "global", TABLESPACES_FOLDER, WAL_FOLDER, STATUS_FOLDER)

GROUP_ACCESS = 0o050
PASSAGE_MODE = 0o711


class PostgresFolderRefill:
    """Keeps the ``FolderRefill`` contract for physical backups of PostgreSQL 15 to 18.

    With a ``target`` the folder takes the stored log up to there too, and its server stops exactly at it.
    """

    def __init__(self, target: Target | None = None) -> None:
        self._target = target if target is not None and not target.is_whole_backup else None

    def refuse_target(self, target: FolderTarget) -> None:
        """Raise ``Conflict`` where a server runs on the target, ``ConfigInvalid`` where it can be no data folder."""
        refuse_folder(target)

    def plan_folder(
        self, target: FolderTarget, details: JsonObject, entries: Sequence[StoredEntry], read: Callable[[int], bytes]
    ) -> FolderPlan:
        """Decide where everything goes. Looks at the target only for the system identifier of what is there.

        Raises ``ConfigInvalid`` for impossible locations, ``Conflict`` where the target holds another system, and
        ``IntegrityBroken`` where the backup lacks what a start needs.
        """
        known = BackupDetails.from_document(details)
        refuse_other_system(absolute(target.folder), known.system_identifier)
        if self._target is not None:
            refuse_other_base(known, self._target)
        layout = _Layout(absolute(target.folder), known, tuple(entries), self._target)
        layout.place(target)
        layout.sort()
        return layout.plan(read)


@dataclass(slots=True)
class _Layout:
    """The plan being made: which entry becomes what, before any file is touched."""

    folder: Path
    details: BackupDetails
    entries: tuple[StoredEntry, ...]
    target: Target | None = None
    placed: dict[str, PlacedTablespace] = field(default_factory=dict)
    folders: dict[str, int] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    links_left_out: list[str] = field(default_factory=list)

    def place(self, target: FolderTarget) -> None:
        """Give every tablespace its new folder; links in the backup tell of those that its details leave out."""
        spaces = {space.oid: space for space in self.details.tablespaces}
        for stored in self.entries:
            parts = stored.entry.path.split("/")
            if len(parts) == 2 and parts[0] == TABLESPACES_FOLDER and parts[1].isdigit() and stored.entry.link_target:
                spaces.setdefault(int(parts[1]), Tablespace(int(parts[1]), stored.entry.link_target, None))
        placed = place_tablespaces(target, tuple(spaces.values()))
        self.placed = {f"{TABLESPACES_FOLDER}/{space.oid}": space for space in placed}

    def sort(self) -> None:
        """Sort the entries into folders and files, without those that are never restored."""
        for index, stored in enumerate(self.entries):
            path = stored.entry.path
            if path.startswith(BESIDE_PREFIX):
                continue
            _refuse_path(path)
            self._refuse_unknown_tablespace(path)
            kind = EntryType.FOLDER if path == WAL_FOLDER else stored.entry.type
            if kind is EntryType.FOLDER:
                self.folders[path] = _folder_mode(stored.entry.mode)
            elif path in self.placed:
                continue
            elif kind is EntryType.LINK:
                self.links_left_out.append(path)
            elif path in NEVER_RESTORED or path.split("/")[0] in EMPTIED_FOLDERS:
                continue
            elif path in self.files:
                raise _broken(f"the backup holds {path} twice")
            else:
                self.files[path] = index
        for needed in (LABEL_FILE, CONTROL_FILE, "PG_VERSION"):
            if needed not in self.files:
                raise _broken(f"the backup has no {needed}")

    def _refuse_unknown_tablespace(self, path: str) -> None:
        space = "/".join(path.split("/", 2)[:2])
        if space.startswith(f"{TABLESPACES_FOLDER}/") and space not in self.placed:
            raise _broken(f"the backup holds {path}, but its details know no such tablespace")

    def plan(self, read: Callable[[int], bytes]) -> FolderPlan:
        """Return the finished plan."""
        group = self.folders.get("global", 0) & GROUP_ACCESS
        folder_mode, file_mode = (0o750, 0o640) if group else (0o700, 0o600)
        wal_steps, log_files, made = self._wal(file_mode)
        configuration, notes = self._configuration(read)
        made.update(configuration)
        made[SIGNAL_FILE] = b""
        data = {path: index for path, index in self.files.items() if not _in_folder(path, WAL_FOLDER)}
        control = data.pop(CONTROL_FILE)
        steps = (self._step(index, None) for path, index in data.items() if path not in made)
        return FolderPlan(
            roots=(self.folder, *(space.new for space in self.placed.values())),
            folders=self._folders(folder_mode),
            files=(*steps, *wal_steps),
            generated=tuple((self._path(path), content, file_mode) for path, content in made.items()),
            links=tuple((self.folder / path, str(space.new)) for path, space in self.placed.items()),
            last=(self._step(control, None),),
            notes=(*backup_notes(self.details, self.files, tuple(self.placed.values()), self.target), *notes),
            log=log_files,
        )

    def _folders(self, default_mode: int) -> tuple[tuple[Path, int], ...]:
        """Return every folder, parents first: those of the backup, those its files need, those the server needs."""
        wanted = dict(self.folders)
        for path in (*NEEDED_FOLDERS, *self.placed, *self.files):
            parents = (str(parent) for parent in PurePosixPath(path).parents if str(parent) != ".")
            own = () if path in self.files else (path,)
            for name in (*own, *parents):
                wanted.setdefault(name, default_mode)
        folders: dict[Path, int] = {self.folder: default_mode}
        if any(space.new.parent == beside(self.folder) for space in self.placed.values()):
            # Restored by root it stays root's own; the server passes through to its tablespaces, which are private.
            folders[beside(self.folder)] = PASSAGE_MODE
        ordered = sorted(wanted.items(), key=lambda item: PurePosixPath(item[0]).parts)
        folders |= {self._path(path): mode for path, mode in ordered if not self._foreign(path)}
        return tuple(folders.items())

    def _foreign(self, path: str) -> bool:
        """Whether a folder belongs to what is not restored: it lies below an emptied one."""
        top, _, below = path.partition("/")
        return bool(below) and top in EMPTIED_FOLDERS

    def _wal(self, mode: int) -> tuple[tuple[FileStep, ...], tuple[LogFile, ...], dict[str, bytes]]:
        """Return the log's files: of the backup up to its stop position, of the stored log up to the target.

        Made are the marks that they were archived already, and the histories of timelines.
        """
        below = {path: index for path, index in self.files.items() if posixpath.dirname(path) == WAL_FOLDER}
        sizes = ((posixpath.basename(path), self.entries[index].size_bytes) for path, index in below.items())
        choice = choose_wal(self.details, sizes)
        made = {f"{STATUS_FOLDER}/{name}": b"" for name in choice.done}
        files: tuple[LogFile, ...] = ()
        histories: set[str] = set()
        if self.target is not None:
            planned = plan_log(self.details, self.target, self.folder / WAL_FOLDER, mode)
            files = planned.files
            made |= planned.made
            histories = set(planned.made)
        steps = tuple(
            self._step(below[path], zero_from)
            for name, zero_from in choice.kept
            if (path := f"{WAL_FOLDER}/{name}") not in histories
        )
        return steps, files, made

    def _configuration(self, read: Callable[[int], bytes]) -> tuple[dict[str, bytes], tuple[str, ...]]:
        """Return the configuration files that are made, and what the operator should know about them."""
        indexes = dict(self.files)
        indexes |= ((stored.entry.path, i) for i, stored in enumerate(self.entries) if stored.entry.path == AUTO_FILE)
        paths = frozenset(indexes) | frozenset(self.folders)
        found = read_configuration(lambda path: read(indexes[path]) if path in indexes else None, paths)
        made, notes = self._made_files(found)
        carried = portable_settings(self.details) if found.cut or not found.present else ()
        missing = tuple((name, value) for name, value in carried if found.present and name not in found.settings)
        effective = {**dict(carried), **found.settings}
        changes = host_changes(effective, self.folder, paths)
        minimums = raised_minimums(self.details, effective)
        ours = dict((*missing, *minimums, *changes.settings, *isolation_settings(self.details)))
        asked = recovery_target(self.target) if self.target is not None else None
        made[AUTO_FILE] = auto_conf(
            found.auto_lines, (*ours.items(), *recovery_settings(self.details, effective, asked))
        )
        return made, (*notes, *self._library_notes(effective), *changes.notes)

    def _library_notes(self, effective: Mapping[str, str]) -> tuple[str, ...]:
        if libraries := effective.get("shared_preload_libraries"):
            return (f"the server loads {libraries}: these must be installed where it starts, and begin their work",)
        return ()

    def _made_files(self, found: FoundConfiguration) -> tuple[dict[str, bytes], tuple[str, ...]]:
        made = dict(found.rewritten)
        if not found.present:
            made[MAIN_FILE] = minimal_main_file(self.details)
        for name, content in ((HBA_FILE, HBA_CONTENT), (IDENT_FILE, IDENT_CONTENT)):
            if name not in self.files and (name == HBA_FILE or not found.present):
                made[name] = content
        notes: list[str] = [
            f"not restored, it is a link of the source's machine: {path}" for path in self.links_left_out
        ]
        notes += [f"a comment now, it only fits the source's machine: {line}" for line in found.cut]
        unlike = sorted({*made, *(stored.entry.path for stored in self.entries if stored.entry.path == MAP_FILE)})
        if unlike:
            ignored = " ".join(f"--ignore={name}" for name in unlike)
            notes.append(f"files that fit only the source's machine differ: pg_verifybackup needs {ignored}")
        if made and any(stored.entry.path.startswith(SETTINGS_PREFIX) for stored in self.entries):
            notes.append(f"the source's own configuration is in the backup, below {SETTINGS_PREFIX}")
        if not found.present and self.details.setting("data_directory") is None:
            notes.append("settings that only a member of pg_read_all_settings sees were not recorded; check them")
        return made, tuple(notes)

    def _step(self, index: int, zero_from: int | None) -> FileStep:
        entry = self.entries[index].entry
        return FileStep(index, self._path(entry.path), entry.mode & 0o777 or 0o600, zero_from)

    def _path(self, path: str) -> Path:
        """Return where a path of the backup lies, through the tablespaces' new places."""
        parts = path.split("/", 2)
        space = self.placed.get("/".join(parts[:2]))
        return self.folder / path if space is None else space.new.joinpath(*parts[2:])


def _folder_mode(mode: int) -> int:
    """Return a mode that the server accepts: the owner all, the group at most reading."""
    return 0o700 | (mode & GROUP_ACCESS)


def _in_folder(path: str, folder: str) -> bool:
    return path.startswith(f"{folder}/")


def _refuse_path(path: str) -> None:
    plain = PurePosixPath(path)
    if plain.is_absolute() or ".." in plain.parts or str(plain) != path or "\0" in path:
        raise _broken(f"the backup holds a path that would leave the folder: {path!r}")


def _broken(message: str) -> IntegrityBroken:
    return IntegrityBroken(message, hint="restore another backup (`holdfast backups`), and run `holdfast check`")
