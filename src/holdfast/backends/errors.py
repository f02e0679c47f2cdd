"""The one family of failures that backends and the node side report.

    BackendError
     +- NotFound         the volume, snapshot or path does not exist
     +- AlreadyExists    the name is taken by something different
     +- Invalid          the request can never work as written     (infeasible)
     +- Conflict         in use, or in a state that forbids this now  (retryable)
     +- Exhausted        no room, no free slot                        (retryable)
     +- Unsupported      this backend or machine cannot do it      (infeasible)
     +- Unauthorized     the storage system refused our credentials   (retryable)
     |   +- NoCredentials   it was not even asked
     +- Unavailable      the storage system or a tool did not answer  (retryable)

Every error says what happened, where, and what to do about it; the text is
shown to users in events, so it never holds a secret. `retryable` means that
the same call may succeed later without anyone changing the request;
`infeasible` means that it will not until someone does.
"""

from __future__ import annotations

from typing import ClassVar


class BackendError(Exception):
    """A failure with its place and its remedy; `str()` joins the three."""

    retryable: ClassVar[bool] = False
    infeasible: ClassVar[bool] = False

    def __init__(self, what: str, where: str = "", remedy: str = "") -> None:
        super().__init__(what, where, remedy)
        self.what = what
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}; {self.remedy}" if self.remedy else text


class NotFound(BackendError):
    """The volume, snapshot or path does not exist."""


class AlreadyExists(BackendError):
    """The name is taken by a volume that differs from the request."""


class Invalid(BackendError):
    """The request can never work as it is written."""

    infeasible = True


class Conflict(BackendError):
    """The thing is in use, or in a state that forbids the operation now."""

    retryable = True


class Exhausted(BackendError):
    """There is no room for the request."""

    retryable = True


class Unsupported(BackendError):
    """This backend, or this machine, cannot do what was asked."""

    infeasible = True


class Unauthorized(BackendError):
    """The storage system refused the credentials; an administrator can repair that."""

    retryable = True


class NoCredentials(Unauthorized):
    """There are none, or none that could be shown: the storage system was not asked."""


class Unavailable(BackendError):
    """The storage system, or a program that is needed, did not answer."""

    retryable = True
