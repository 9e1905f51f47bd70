"""Protects a whole application, brings it back to one moment, and proves that it can.

``import holdfast`` offers the verbs of the command line to scripts (docs/guide/python.md). Names are looked up when
they are first used, so that importing this package alone imports nothing else.
"""

from __future__ import annotations

from holdfast.version import __version__

TYPE_CHECKING = False  # as typing has it, which takes its time: `wal fetch` is run for every segment
if TYPE_CHECKING:
    from holdfast.application.application import Application, Watcher, open_application
    from holdfast.application.doctor import diagnose
    from holdfast.application.following import Following, FollowOrder
    from holdfast.application.keys import Keys
    from holdfast.application.live import ServerPlace
    from holdfast.application.points import PointWish
    from holdfast.application.results import (
        BackupOutcome,
        BackupSummary,
        EntryView,
        InitOutcome,
        RestoreOutcome,
        RestorePlan,
        SlotView,
        TopicFindings,
    )
    from holdfast.application.setup import SetupOrder, set_up
    from holdfast.model.errors import (
        AlreadyExists,
        ConfigInvalid,
        Conflict,
        Denied,
        HoldfastError,
        IntegrityBroken,
        Interrupted,
        KeyInvalid,
        LeaseHeld,
        NotFound,
        OutOfSpace,
        RepositoryAbsent,
        SourceFailed,
        Unavailable,
    )
    from holdfast.model.events import Progress
    from holdfast.model.secrets import Secret
    from holdfast.sources.port import Tier

__all__ = [
    "AlreadyExists",
    "Application",
    "BackupOutcome",
    "BackupSummary",
    "ConfigInvalid",
    "Conflict",
    "Denied",
    "EntryView",
    "FollowOrder",
    "Following",
    "HoldfastError",
    "InitOutcome",
    "IntegrityBroken",
    "Interrupted",
    "KeyInvalid",
    "Keys",
    "LeaseHeld",
    "NotFound",
    "OutOfSpace",
    "PointWish",
    "Progress",
    "RepositoryAbsent",
    "RestoreOutcome",
    "RestorePlan",
    "Secret",
    "ServerPlace",
    "SetupOrder",
    "SlotView",
    "SourceFailed",
    "Tier",
    "TopicFindings",
    "Unavailable",
    "Watcher",
    "__version__",
    "diagnose",
    "open_application",
    "set_up",
]

_ROOMS = {
    "application.application": ("Application", "Watcher", "open_application"),
    "application.doctor": ("diagnose",),
    "application.following": ("FollowOrder", "Following"),
    "application.keys": ("Keys",),
    "application.live": ("ServerPlace",),
    "application.points": ("PointWish",),
    "application.results": (
        "BackupOutcome",
        "BackupSummary",
        "EntryView",
        "InitOutcome",
        "RestoreOutcome",
        "RestorePlan",
        "SlotView",
        "TopicFindings",
    ),
    "application.setup": ("SetupOrder", "set_up"),
    "model.events": ("Progress",),
    "model.secrets": ("Secret",),
    "sources.port": ("Tier",),
}
_ROOM_OF = {name: room for room, offered in _ROOMS.items() for name in offered}
_ERRORS = "model.errors"


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    module = importlib.import_module(f"{__name__}.{_ROOM_OF.get(name, _ERRORS)}")
    return getattr(module, name)
