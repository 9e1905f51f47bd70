"""Answers of object stores, said in our words: which are final, which may be tried again, which prove nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass

from obstore.exceptions import AlreadyExistsError, PermissionDeniedError, PreconditionError, UnauthenticatedError

from holdfast.model.errors import (
    AlreadyExists,
    Denied,
    HoldfastError,
    NotFound,
    OutcomeUnknown,
    OutOfSpace,
    Unavailable,
)

_INSTANCE_METADATA = ("/latest/api/token", "/latest/meta-data")
# obstore (0.12) passes on the answer only inside its text: "... status code: 403 Forbidden: <Error><Code>...".
_STATUS = re.compile(r"Server returned non-2xx status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z0-9]{1,64})</Code>|\"code\": ?\"([A-Za-z0-9]{1,64})\"")

_BUCKET_ABSENT = {"NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted"}
_STORE_FULL = {"XMinioStorageFull", "QuotaExceeded", "InsufficientCapacity", "EntityTooLargeForQuota"}
_TRY_AGAIN_CODES = {"RequestTimeout", "SlowDown", "OperationAborted", "IncompleteBody", "BadDigest", "TooManyRequests"}
_CLOCK_CODES = {"RequestTimeTooSkewed", "RequestExpired"}
_STALE_CODES = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken", "InvalidAccessKeyId"}
_OTHER_REGION = ("redirect without LOCATION", "AuthorizationHeaderMalformed")
_TRY_AGAIN_STATUS = {408, 425, 429}
_NEVER_DONE_STATUS = {429}
_FINAL_SERVER_STATUS = {501, 505}


@dataclass(frozen=True, slots=True)
class Answer:
    """What an exception of obstore tells of the answer; ``status`` None: there was none, or not one of HTTP."""

    status: int | None
    code: str

    @property
    def reason(self) -> str:
        """The answer in brief for a message; never the store's whole text."""
        return " ".join(part for part in (str(self.status or ""), self.code) if part) or "no usable answer"


def read_answer(error: BaseException) -> Answer:
    """Return the HTTP status and the store's error code that an exception of obstore bears."""
    text = str(error)
    status = _STATUS.search(text)
    code = _CODE.search(text.replace('\\"', '"'))
    return Answer(
        int(status.group(1)) if status else None,
        (code.group(1) or code.group(2)) if code else "",
    )


def translate(subject: str, error: Exception, *, creating: bool = False) -> HoldfastError:
    """Return the error of our tree for one of obstore's met on ``subject`` (an address with a name).

    ``creating``: a failure that does not prove the write undone is ``OutcomeUnknown``, not merely ``Unavailable``.
    """
    answer = read_answer(error)
    text = str(error)
    if any(path in text for path in _INSTANCE_METADATA):
        return _no_credentials(subject, answer)
    if answer.code in _BUCKET_ABSENT:
        return _bucket_absent(subject, answer)
    # A mere status of 404 may come from a service that was asked for credentials.
    if isinstance(error, FileNotFoundError):
        return NotFound(f"{subject} is absent")
    if creating and isinstance(error, AlreadyExistsError | PreconditionError):
        return AlreadyExists(f"{subject} exists already, says the store ({answer.reason})")
    if answer.code in _STORE_FULL or answer.status == 507:
        return OutOfSpace(
            f"no space left for {subject} ({answer.reason})", hint="Make room in the store or raise its quota."
        )
    if answer.code not in _TRY_AGAIN_CODES and _is_refusal(error, answer, text):
        return _refused(subject, answer, text)
    return _unreached(subject, answer, text, creating=creating)


def is_range_refusal(error: BaseException | None) -> bool:
    """Tell whether a store refused a range because the object is shorter than where it begins."""
    if error is None:
        return False
    return read_answer(error).status == 416 or "Wanted range starting at" in str(error)


def _is_refusal(error: Exception, answer: Answer, text: str) -> bool:
    if isinstance(error, PermissionDeniedError | UnauthenticatedError) or _OTHER_REGION[0] in text:
        return True
    if answer.status is None:
        return isinstance(error, ValueError | TypeError)
    client_fault = 300 <= answer.status < 500 and answer.status not in _TRY_AGAIN_STATUS | {409, 412, 416}
    return client_fault or answer.status in _FINAL_SERVER_STATUS


def _unreached(subject: str, answer: Answer, text: str, *, creating: bool) -> HoldfastError:
    never_sent = "kind: Connect" in text
    if creating and not never_sent and answer.status not in _NEVER_DONE_STATUS:
        return OutcomeUnknown(
            f"nothing tells whether {subject} was written ({answer.reason})",
            hint="The store or the network failed in the middle; run the command again once it answers.",
        )
    return Unavailable(
        f"{subject} cannot be reached" if answer.status is None else f"{subject} is not served now ({answer.reason})",
        hint="Check the endpoint, the network and the store's own status page; the command may be run again.",
    )


def _bucket_absent(subject: str, answer: Answer) -> Denied:
    return Denied(
        f"the bucket or container of {subject} does not exist ({answer.reason})",
        hint="Create it, or correct the repository's url; holdfast never creates buckets by itself.",
    )


def _refused(subject: str, answer: Answer, text: str) -> HoldfastError:
    hint = "Give the credentials in use the right to get, put and list there; `holdfast doctor` tries each one."
    if answer.code in _CLOCK_CODES:
        hint = "This machine's clock is too far from the store's: synchronise it (NTP), then run the command again."
    elif answer.code in _STALE_CODES or answer.status == 401:
        hint = "The credentials are expired or unknown there: renew them, then run the command again."
    elif (
        answer.status in {301, 307, 308}
        or "redirect without LOCATION" in text
        or "AuthorizationHeaderMalformed" in text
    ):
        hint = "The bucket most likely lies in another region: set the repository's region to that of the bucket."
    elif answer.status in {501, 405}:
        hint = "This store does not offer what is needed (conditional writes above all): keep the repository elsewhere."
    return Denied(f"{subject} was refused by the store ({answer.reason})", hint=hint)


def _no_credentials(subject: str, answer: Answer) -> HoldfastError:
    message = f"no credentials for {subject}: none are configured, and no instance role answered ({answer.reason})"
    hint = (
        "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or profile, or access_key and secret_key of the repository."
    )
    final = answer.status is not None and answer.status < 500 and answer.status not in _TRY_AGAIN_STATUS
    return Denied(message, hint=hint) if final else Unavailable(message, hint=hint)
