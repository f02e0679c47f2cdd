"""Which gRPC code a failure has: the one table, and the text that goes with it.

The text is the error's own: what happened, where, what to do. External sidecars
and kubelet decide by the code whether to try again and when, and show the text
in an event. INTERNAL is for defects of Holdfast alone.

Invariant: no value of a call's secrets leaves in a text, whatever a backend wrote.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import grpc

from holdfast.backends import errors

CODES: Mapping[type[errors.BackendError], grpc.StatusCode] = {
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.Invalid: grpc.StatusCode.INVALID_ARGUMENT,
    errors.Conflict: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Exhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    # What cannot work until somebody changes the request or the machine; sidecars slow down.
    errors.Unsupported: grpc.StatusCode.INVALID_ARGUMENT,
    errors.Unauthorized: grpc.StatusCode.UNAUTHENTICATED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
}

# Shorter values are too likely to be part of an honest word.
_SECRET_LENGTH = 4


class Busy(errors.BackendError):
    """Another operation on the volume is in work; the text says which and since when."""

    retryable = True


class BadToken(errors.BackendError):
    """A `starting_token` that no listing gave out."""


class OutOfRange(errors.BackendError):
    """No size fits between the least and the most that was asked for."""

    infeasible = True


_OWN: Mapping[type[errors.BackendError], grpc.StatusCode] = {
    Busy: grpc.StatusCode.ABORTED,
    BadToken: grpc.StatusCode.ABORTED,
    OutOfRange: grpc.StatusCode.OUT_OF_RANGE,
}


def code_of(error: errors.BackendError) -> grpc.StatusCode:
    """Return the code of an error's family; INTERNAL for one that has none."""
    table = {**CODES, **_OWN}
    return next((table[kind] for kind in type(error).__mro__ if kind in table), _INTERNAL)


_INTERNAL = grpc.StatusCode.INTERNAL


def redacted(text: str, secrets: Iterable[str]) -> str:
    """Return the text with every value of a secret blotted out."""
    for value in secrets:
        if len(value) >= _SECRET_LENGTH:
            text = text.replace(value, "***")
    return text
