"""The errors of the API: one class per HTTP code and Kubernetes reason.

    StatusError
     +- BadRequest             400
     +- Unauthorized           401
     +- Forbidden              403
     +- NotFound               404
     +- MethodNotAllowed       405
     +- NotAcceptable          406
     +- AlreadyExists          409
     +- Conflict               409
     +- Gone                   410
     |   +- Expired            410  the resourceVersion or continue token is too old
     +- RequestTooLarge        413
     +- UnsupportedMediaType   415
     +- Invalid                422
     +- TooManyRequests        429
     +- InternalError          500
     +- ServiceUnavailable     503
     +- Timeout                504

Both sides use them: the API server raises one and answers with `status()`; the
client reads the answer with `StatusError.from_status` and raises the same
class. Each takes the finished message; the `of` constructors build the message
and the details that the reference gives for a resource. `details.kind` is the
plural resource, except for Invalid, where it is the kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

from holdfast.api import fields
from holdfast.api.fields import Cause

MODIFIED = (
    "the object has been modified; please apply your changes to the latest version and try again"
)


class StatusError(Exception):
    """An answer of the API that is not a success."""

    default_code: ClassVar[int] = 500
    default_reason: ClassVar[str] = ""

    def __init__(
        self,
        message: str,
        *,
        details: Mapping[str, Any] | None = None,
        code: int | None = None,
        reason: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details: dict[str, Any] | None = None if details is None else dict(details)
        self.code = self.default_code if code is None else code
        self.reason = self.default_reason if reason is None else reason

    def status(self) -> dict[str, Any]:
        """Return the Status object to send."""
        status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            status["reason"] = self.reason
        if self.details is not None:
            status["details"] = self.details
        status["code"] = self.code
        return status

    @staticmethod
    def from_status(status: Mapping[str, Any]) -> StatusError:
        """Rebuild the error from a Status object; an unknown reason goes by its code."""
        reason = status.get("reason") or ""
        code = status.get("code") or 500
        found = _BY_REASON.get(reason) or _BY_CODE.get(code, StatusError)
        message = status.get("message") or reason or f"the server answered with code {code}"
        return found(message, details=status.get("details"), code=code, reason=reason)

    @property
    def causes(self) -> list[dict[str, str]]:
        """The entries of details.causes, possibly none."""
        return list((self.details or {}).get("causes") or ())

    def has_cause(self, reason: str) -> bool:
        """Tell whether one of the causes has this reason."""
        return any(cause.get("reason") == reason for cause in self.causes)


class BadRequest(StatusError):
    """The request cannot be understood."""

    default_code = 400
    default_reason = "BadRequest"


class Unauthorized(StatusError):
    """The caller is not known."""

    default_code = 401
    default_reason = "Unauthorized"

    def __init__(self, message: str = "Unauthorized", **rest: Any) -> None:
        super().__init__(message, **rest)


class Forbidden(StatusError):
    """The caller, or the state of things, does not allow it."""

    default_code = 403
    default_reason = "Forbidden"

    @classmethod
    def of(cls, group: str, plural: str, name: str, why: str, causes: Sequence[Cause] = ()) -> Self:
        """Refuse an action on a resource; an empty name means the whole collection."""
        subject = resource(group, plural)
        subject = f"{subject} {fields.quote(name)} " if name else f"{subject} " if plural else ""
        message = f"{subject}is forbidden: {why}" if subject else f"forbidden: {why}"
        return cls(message, details=_details(group, plural, name, causes))


class NotFound(StatusError):
    """The object, or the resource itself, does not exist."""

    default_code = 404
    default_reason = "NotFound"

    @classmethod
    def of(cls, group: str, plural: str, name: str) -> Self:
        """Report a missing object."""
        message = f"{resource(group, plural)} {fields.quote(name)} not found"
        return cls(message, details=_details(group, plural, name))

    @classmethod
    def resource(cls) -> Self:
        """Report a missing resource type (an unknown plural in a known group)."""
        return cls("the server could not find the requested resource", details={})


class MethodNotAllowed(StatusError):
    """The resource does not know this verb."""

    default_code = 405
    default_reason = "MethodNotAllowed"

    def __init__(
        self,
        message: str = "the server does not allow this method on the requested resource",
        **rest: Any,
    ) -> None:
        super().__init__(message, **{"details": {}, **rest})


class NotAcceptable(StatusError):
    """None of the accepted media types can be produced."""

    default_code = 406
    default_reason = "NotAcceptable"

    @classmethod
    def of(cls, produced: Sequence[str]) -> Self:
        """Name the media types that can be produced."""
        return cls(f"only the following media types are accepted: {', '.join(produced)}")


class AlreadyExists(StatusError):
    """The name is taken."""

    default_code = 409
    default_reason = "AlreadyExists"

    @classmethod
    def of(cls, group: str, plural: str, name: str, *, terminating: bool = False) -> Self:
        """Report a taken name; `terminating` says that its holder is being deleted."""
        prefix = "object is being deleted: " if terminating else ""
        message = f"{prefix}{resource(group, plural)} {fields.quote(name)} already exists"
        return cls(message, details=_details(group, plural, name))


class Conflict(StatusError):
    """The object is not in the state the caller believes it to be in."""

    default_code = 409
    default_reason = "Conflict"

    @classmethod
    def of(cls, group: str, plural: str, name: str, why: str = MODIFIED) -> Self:
        """Report a failed precondition; `plural` is the kind for preconditions of a delete."""
        subject = f"{resource(group, plural)} {fields.quote(name)}"
        message = f"Operation cannot be fulfilled on {subject}: {why}"
        return cls(message, details=_details(group, plural, name))


class Gone(StatusError):
    """What was asked for existed and will not come back."""

    default_code = 410
    default_reason = "Gone"


class Expired(Gone):
    """The history needed for the answer has been compacted."""

    default_reason = "Expired"
    token: str = ""

    @classmethod
    def of(cls, message: str) -> Self:
        """Report that a resourceVersion or a continue token is too old."""
        return cls(message)

    @classmethod
    def of_page(cls, message: str, token: str) -> Self:
        """The same, with a token for the rest of the list as it is now."""
        error = cls(message)
        error.token = token
        return error

    def status(self) -> dict[str, Any]:
        """Return the Status object to send."""
        status = super().status()
        return {**status, "metadata": {"continue": self.token}} if self.token else status


class RequestTooLarge(StatusError):
    """The body exceeds the limit."""

    default_code = 413
    default_reason = "RequestEntityTooLarge"

    @classmethod
    def of(cls, limit: int) -> Self:
        """Name the limit in bytes."""
        return cls(f"Request entity too large: limit is {limit}")


class UnsupportedMediaType(StatusError):
    """The body has a type that cannot be read."""

    default_code = 415
    default_reason = "UnsupportedMediaType"

    @classmethod
    def of(cls, accepted: Sequence[str]) -> Self:
        """Name the media types that can be read."""
        types = ", ".join(accepted)
        unknown = "the body of the request was in an unknown format"
        return cls(f"{unknown} - accepted media types include: {types}")


class Invalid(StatusError):
    """The object was understood and breaks rules."""

    default_code = 422
    default_reason = "Invalid"

    @classmethod
    def of(cls, group: str, kind: str, name: str, causes: Sequence[Cause]) -> Self:
        """Report broken rules; `kind` is the kind, not the plural."""
        # Equal texts are said once in the message but listed each in the causes.
        texts = list(dict.fromkeys(cause.text() for cause in causes))
        subject = f"{resource(group, kind)} {fields.quote(name)} is invalid"
        if len(texts) == 1:
            subject += f": {texts[0]}"
        elif texts:
            subject += f": [{', '.join(texts)}]"
        return cls(subject, details=_details(group, kind, name, causes))


class TooManyRequests(StatusError):
    """The caller must wait."""

    default_code = 429
    default_reason = "TooManyRequests"

    @classmethod
    def of(cls, message: str, retry_after: int) -> Self:
        """Ask to try again after this many seconds."""
        return cls(message, details={"retryAfterSeconds": retry_after})


class InternalError(StatusError):
    """The server failed; not the caller's fault."""

    default_code = 500
    default_reason = "InternalError"

    @classmethod
    def of(cls, why: str) -> Self:
        """Report a failure inside the server."""
        return cls(f"Internal error occurred: {why}", details={"causes": [{"message": why}]})

    @classmethod
    def unknown(cls, message: str) -> Self:
        """Report a failure without a reason, as the reference does for plain errors."""
        return cls(message, reason="")


class ServiceUnavailable(StatusError):
    """The server cannot answer now."""

    default_code = 503
    default_reason = "ServiceUnavailable"


class Timeout(StatusError):
    """The answer did not come in time."""

    default_code = 504
    default_reason = "Timeout"

    @classmethod
    def of(cls, message: str, retry_after: int = 0) -> Self:
        """Report a time-out; `retry_after` is in seconds."""
        details = {"retryAfterSeconds": retry_after} if retry_after else {}
        return cls(f"Timeout: {message}", details=details)

    @classmethod
    def future(cls, asked: int, current: int) -> Self:
        """Report a resourceVersion that the store has not reached."""
        text = "Too large resource version"
        cause = {"reason": "ResourceVersionTooLarge", "message": text}
        details = {"causes": [cause], "retryAfterSeconds": 1}
        return cls(f"Timeout: {text}: {asked}, current: {current}", details=details)


def resource(group: str, plural: str) -> str:
    """Qualify a resource (or kind) by its group; the core group is not named."""
    return f"{plural}.{group}" if group else plural


def _details(group: str, kind: str, name: str, causes: Sequence[Cause] = ()) -> dict[str, Any]:
    details: dict[str, Any] = {}
    if name:
        details["name"] = name
    if group:
        details["group"] = group
    if kind:
        details["kind"] = kind
    if causes:
        details["causes"] = [cause.as_dict() for cause in causes]
    return details


_CLASSES: tuple[type[StatusError], ...] = (
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    NotAcceptable,
    AlreadyExists,
    Conflict,
    Gone,
    Expired,
    RequestTooLarge,
    UnsupportedMediaType,
    Invalid,
    TooManyRequests,
    InternalError,
    ServiceUnavailable,
    Timeout,
)
_BY_REASON = {found.default_reason: found for found in _CLASSES}
# Several classes share a code; the plain one stands for an answer without a reason.
_BY_CODE = {found.default_code: found for found in _CLASSES} | {409: Conflict, 410: Gone}
