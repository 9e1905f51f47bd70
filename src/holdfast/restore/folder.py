"""Restores a backup into a folder: refuse, plan, write, make durable, and only then make it usable."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path

from holdfast.model.errors import Conflict, OutOfSpace, SourceFailed
from holdfast.model.events import OnProgress
from holdfast.repository.area import Area
from holdfast.repository.format.record import BackupRecord
from holdfast.repository.format.tree import TreeEntry, check_tree
from holdfast.repository.index.lookup import open_index
from holdfast.repository.reading import ChunkReader, read_content, read_tree
from holdfast.restore.files import FileContent, FileWriter, Written, sync, write_failed
from holdfast.restore.log_files import write_log
from holdfast.sources.port import (
    Entry,
    EntryType,
    FileStep,
    FolderPlan,
    FolderRefill,
    FolderTarget,
    Layout,
    LogContent,
    StoredEntry,
)

UNFINISHED = ".holdfast-unfinished"
SMALL_CONTENT_BYTES_MAX = 16 << 20
TIDY = {"lost+found"}


@dataclass(frozen=True, slots=True)
class RestoreOrder:
    """What is wanted. ``delta`` keeps what the target already holds right and rewrites or removes the rest.

    ``log`` is the stored log, for a refill whose plan takes of it.
    """

    target: FolderTarget
    delta: bool = False
    log: LogContent | None = None


@dataclass(frozen=True, slots=True)
class Hands:
    """What a restore is given: threads, whom to tell, and whether to stop."""

    executor: Executor
    on_progress: OnProgress
    stop_requested: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did, with what the operator must know."""

    files: int
    written: Written
    removed: int
    notes: tuple[str, ...]


def restore_folder(
    area: Area,
    record: BackupRecord,
    refill: FolderRefill,
    order: RestoreOrder,
    hands: Hands,
) -> Restored:
    """Bring a backup into a folder, every chunk verified.

    Raises ``Conflict`` for a target that must not be written to, and whatever reading and writing raise; an unfinished
    target lacks the file without which its server refuses to start.
    """
    refill.refuse_target(order.target)
    index = open_index(area, frozenset(), hands.executor)
    try:
        reader = ChunkReader(area, index)
        entries = list(read_tree(reader, record, hands.executor))
        check_tree(f"the tree of backup {record.id}", entries)
        plan = _plan(reader, record, refill, order.target, entries, hands.executor)
        _refuse_roots(plan, delta=order.delta)
        _refuse_small_disk(plan, entries, delta=order.delta)
        return _execute(
            plan,
            entries,
            FileWriter(reader, area, hands.executor, hands.on_progress, hands.stop_requested),
            order,
            hands,
        )
    finally:
        index.close()


def _plan(
    reader: ChunkReader,
    record: BackupRecord,
    refill: FolderRefill,
    target: FolderTarget,
    entries: Sequence[TreeEntry],
    executor: Executor,
) -> FolderPlan:
    def read(number: int) -> bytes:
        ref = entries[number].ref
        if ref is None or ref.size > SMALL_CONTENT_BYTES_MAX:
            raise SourceFailed(f"{entries[number].path} is too large to be read into a plan")
        return b"".join(read_content(reader, ref, executor))

    return refill.plan_folder(target, record.details, [stored_entry(entry) for entry in entries], read)


def stored_entry(entry: TreeEntry) -> StoredEntry:
    """Return an entry of a tree in the words of the source contract."""
    mode = entry.mode if entry.mode is not None else (0o700 if entry.type == "folder" else 0o600)
    plain = Entry(entry.path, EntryType(entry.type), mode, link_target=entry.link, layout=Layout(entry.layout))
    return StoredEntry(plain, entry.ref.size if entry.ref is not None else 0)


def _refuse_roots(plan: FolderPlan, *, delta: bool) -> None:
    for root in plan.roots:
        if not os.path.lexists(root):
            continue
        if not root.is_dir():
            raise Conflict(f"{root} is not a folder", hint="Choose another place with --into.")
        if not delta and any(item.name not in TIDY for item in root.iterdir()):
            raise Conflict(
                f"{root} is not empty",
                hint="Restore into an empty or new folder. To bring an earlier or damaged copy up to this backup, "
                "rewriting only what differs and removing what does not belong, add --delta.",
            )


def _refuse_small_disk(plan: FolderPlan, entries: Sequence[TreeEntry], *, delta: bool) -> None:
    """Refuse before the first byte where the target plainly has no room; a delta may need less and is let try."""
    if delta:
        return
    need: dict[Path, int] = {}
    for step in (*plan.files, *plan.last):
        root = next((root for root in plan.roots if step.path.is_relative_to(root)), plan.roots[0])
        ref = entries[step.index].ref
        need[root] = need.get(root, 0) + (ref.size if ref is not None else 0)
    need[plan.roots[0]] = need.get(plan.roots[0], 0) + sum(file.size_bytes for file in plan.log)
    by_device: dict[int, tuple[Path, int]] = {}
    for root, size in need.items():
        place = next(folder for folder in (root, *root.parents) if folder.exists())
        device = place.stat().st_dev
        by_device[device] = (place, by_device.get(device, (place, 0))[1] + size)
    for place, size in by_device.values():
        free = shutil.disk_usage(place).free
        if free < size:
            raise OutOfSpace(
                f"the restore needs {size} bytes below {place} and {free} are free",
                hint="Make room or choose another --into; nothing was written.",
            )


def _execute(
    plan: FolderPlan, entries: Sequence[TreeEntry], writer: FileWriter, order: RestoreOrder, hands: Hands
) -> Restored:
    removed = 0
    if order.delta:
        # Links first: what lies behind one is not the target's, and must be neither renamed nor written to.
        removed = _remove_folder_links(plan)
        # Out of the way next: from here on the target does not start until all of it is right.
        for step in plan.last:
            if step.path.is_file() and not step.path.is_symlink():
                step.path.replace(_unfinished(step.path))
        removed += _remove_strangers(plan)
    _make_folders(plan)
    files = [_content(step, entries, step.path) for step in plan.files]
    last = [_content(step, entries, _unfinished(step.path)) for step in plan.last]
    log_size = sum(stretch.size_bytes for file in plan.log for _, stretch in file.pieces)
    writer.expect(log_size)
    written = writer.write([*files, *last], delta=order.delta)
    if plan.log:
        if order.log is None:
            raise SourceFailed("the plan takes of the stored log, and none was given")
        write_log(order.log, plan.log, writer.tell, hands.stop_requested)
        written = replace(written, written_bytes=written.written_bytes + log_size)
    _write_generated(plan)
    _make_links(plan)
    folders = sorted({*(root for root in plan.roots), *(folder for folder, _ in plan.folders)})
    writer.flush()
    sync([*(path for path, _, _ in plan.generated), *folders], hands.executor)
    for step in plan.last:
        _unfinished(step.path).replace(step.path)
    sync([step.path.parent for step in plan.last], hands.executor)
    sync([root.parent for root in plan.roots], hands.executor)
    names = {step.path for step in (*plan.files, *plan.last)} | {file.path for file in plan.log}
    return Restored(len(names), written, removed, plan.notes)


def _unfinished(path: Path) -> Path:
    return path.with_name(path.name + UNFINISHED)


def _content(step: FileStep, entries: Sequence[TreeEntry], path: Path) -> FileContent:
    ref = entries[step.index].ref
    if ref is None:
        raise SourceFailed(f"{entries[step.index].path} has no content to restore")
    return FileContent(path, step.mode, ref, step.zero_from)


def _make_folders(plan: FolderPlan) -> None:
    try:
        for root in plan.roots:
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder, mode in plan.folders:
            folder.mkdir(exist_ok=True, parents=True)
            folder.chmod(mode)
    except OSError as error:
        raise write_failed(Path(error.filename or plan.roots[0]), error) from error


def _remove_folder_links(plan: FolderPlan) -> int:
    """Remove links that stand where the plan has folders below a root; a root itself may be a link."""
    found = [folder for folder, _ in sorted(plan.folders) if folder not in plan.roots]
    removed = 0
    for folder in found:  # parents come before what lies in them
        if folder.is_symlink():
            folder.unlink()
            removed += 1
    return removed


def _remove_strangers(plan: FolderPlan) -> int:
    """Remove what the plan does not put there; links are removed and never followed, mount points stay."""
    files_wanted = {step.path for step in plan.files} | {_unfinished(step.path) for step in plan.last}
    files_wanted |= {path for path, _, _ in plan.generated} | {file.path for file in plan.log}
    folders_wanted = {folder for folder, _ in plan.folders} | set(plan.roots)
    removed = 0
    for root in plan.roots:
        for folder, names, files in os.walk(root, topdown=False):
            here = Path(folder)
            for name in files:
                path = here / name
                if path not in files_wanted or not stat.S_ISREG(path.lstat().st_mode):
                    path.unlink()
                    removed += 1
            for name in names:
                path = here / name
                if path.is_symlink():
                    path.unlink()
                elif path not in folders_wanted and not path.is_mount() and not any(path.iterdir()):
                    path.rmdir()
                else:
                    continue
                removed += 1
    return removed


def _write_generated(plan: FolderPlan) -> None:
    for path, content, mode in plan.generated:
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
            with os.fdopen(fd, "wb") as file:
                file.write(content)
                os.fchmod(file.fileno(), mode)
        except OSError as error:
            raise write_failed(path, error) from error


def _make_links(plan: FolderPlan) -> None:
    for path, target in plan.links:
        try:
            if path.is_symlink():
                path.unlink()
            path.symlink_to(target)
        except OSError as error:
            raise write_failed(path, error) from error
