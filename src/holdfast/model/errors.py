"""The one tree of errors: a message that names the thing, a hint to act on, and the exit code that tells a script."""

from __future__ import annotations


class HoldfastError(Exception):
    """An error an operator is meant to read.

    ``message`` is lower case and names the thing; ``hint`` is a sentence the operator can act on. ``kind`` is the
    stable word used in JSON output, ``exit_code`` what a command ends with (docs/reference/commands.md).
    """

    kind = "failed"
    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class ConfigInvalid(HoldfastError):
    """The configuration or the command line says something impossible."""

    kind = "config_invalid"
    exit_code = 2


class NotFound(HoldfastError):
    """Something named is certainly absent (and not merely out of reach)."""

    kind = "not_found"


class RepositoryAbsent(NotFound):
    """There is no repository at the address given."""

    kind = "repository_absent"
    exit_code = 10


class AlreadyExists(HoldfastError):
    """A name is taken. From a store this alone proves nothing: read the object back."""

    kind = "already_exists"


class Denied(HoldfastError):
    """The other side understood and refused: credentials, privileges, policy."""

    kind = "denied"


class KeyInvalid(Denied):
    """No key slot opens with the secret at hand, or there is no secret."""

    kind = "key_invalid"
    exit_code = 12


class Unavailable(HoldfastError):
    """The other side did not answer, or asked to come back later. The only error that is retried."""

    kind = "unavailable"


class OutcomeUnknown(Unavailable):
    """A write was sent and no answer told whether it was done. Settled by reading back."""

    kind = "outcome_unknown"


class OutOfSpace(HoldfastError):
    """A disk or a quota is full. Not retried: waiting does not make room."""

    kind = "out_of_space"


class Conflict(HoldfastError):
    """Another writer was there first, with something different."""

    kind = "conflict"


class LeaseHeld(Conflict):
    """Another run of the same lane is alive."""

    kind = "lease_held"
    exit_code = 11


class IntegrityBroken(HoldfastError):
    """Stored bytes are not what they claim to be. Never retried, never passed over."""

    kind = "integrity_broken"
    exit_code = 13


class SourceFailed(HoldfastError):
    """A server failed, ended early, or is not the one it was."""

    kind = "source_failed"


class Interrupted(HoldfastError):
    """The operator, or a signal, asked to stop."""

    kind = "interrupted"
    exit_code = 130
