"""Errors of the operating system, said in our words."""

from __future__ import annotations

import errno

from holdfast.model.errors import Denied, HoldfastError, NotFound, OutcomeUnknown, OutOfSpace, Unavailable

_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR}
_FULL = {errno.ENOSPC, errno.EDQUOT}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP, errno.ENAMETOOLONG, errno.EFBIG, errno.EINVAL}
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EXDEV, errno.EMLINK}


def translate_os_error(subject: str, error: OSError) -> HoldfastError:
    """Return the error of our tree for one met while working on ``subject`` (an address with a name)."""
    reason = (error.strerror or str(error)).lower()
    if error.errno in _FULL:
        return OutOfSpace(
            f"no space left for {subject}: {reason}",
            hint="Free space on that disk (or raise its quota), then run the command again; nothing partial was kept.",
        )
    if error.errno in _ABSENT:
        return NotFound(f"{subject} is absent", hint="Check the address and that the disk is mounted.")
    if error.errno in _REFUSED:
        return Denied(
            f"{subject} was refused: {reason}",
            hint="Check the folder's owner and mode, that it is mounted writable, and holds no symbolic links.",
        )
    return Unavailable(
        f"{subject} could not be reached: {reason}",
        hint="Look at the disk or network mount below it (`dmesg`, `df`); the command may be run again.",
    )


def translate_write_error(subject: str, error: OSError) -> HoldfastError:
    """Return the error for a failed create or put, where what is absent is never the object itself."""
    if error.errno in _ABSENT:
        return Unavailable(
            f"{subject} was not written: its folder or its staging file disappeared",
            hint="Somebody removes or moves files inside the repository folder; find out who, then run it again.",
        )
    return translate_os_error(subject, error)


def translate_link_error(subject: str, error: OSError) -> HoldfastError:
    """Return the error for a failed ``link()``: most often a file system that has none."""
    if error.errno in _NO_LINKS:
        return Denied(
            f"{subject} cannot be created: the file system refuses hard links ({(error.strerror or '').lower()})",
            hint="exFAT and some SMB and FUSE mounts have none: put the repository on ext4, XFS, ZFS, Btrfs or NFS,"
            " as one file system, or in an object store.",
        )
    translated = translate_write_error(subject, error)
    if isinstance(translated, Unavailable) and error.errno not in _ABSENT:
        # A network file system may have made the link before it failed.
        return OutcomeUnknown(f"nothing tells whether {subject} was created", hint=translated.hint)
    return translated
