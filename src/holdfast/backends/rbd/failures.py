"""Turns what `rados` and `rbd` raise into the errors of backends, with place and remedy.

Their exceptions are told apart by class name and by errno, because the classes
differ between releases of Ceph and the number does not.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from holdfast.backends import errors

FENCED = 108  # ESHUTDOWN: the cluster blocklists this client

_CAPS = (
    "give the user the caps `mon 'profile rbd' osd 'profile rbd pool=POOL'`; "
    "see `holdfast prepare ceph`"
)


@contextlib.contextmanager
def translated(what: str, where: str) -> Iterator[None]:
    """Translate what the block raises. `what` reads "create the image"."""
    try:
        yield
    except errors.BackendError:
        raise
    except Exception as error:
        number = number_of(error)
        if number is None:
            raise
        raise _as_backend_error(number, what, where) from error


def number_of(error: BaseException) -> int | None:
    """Return the positive errno of one of Ceph's exceptions, or None for any other."""
    if type(error).__module__ not in ("rados", "rbd"):
        return None
    number = getattr(error, "errno", None)
    return abs(number) if isinstance(number, int) else errno.EIO


def _as_backend_error(number: int, what: str, where: str) -> errors.BackendError:
    if number == errno.ENOENT:
        return errors.NotFound(
            f"cannot {what}: there is no such image", where, "compare its name with `rbd ls POOL`"
        )
    if number in (errno.EACCES, errno.EPERM):
        return errors.Unauthorized(f"Ceph does not allow this user to {what}", where, _CAPS)
    if number == errno.EEXIST:
        return errors.AlreadyExists(f"cannot {what}: the name is taken", where)
    if number in (errno.EBUSY, errno.ENOTEMPTY):
        return errors.Conflict(f"cannot {what}: it is in use, or has snapshots", where)
    if number in (errno.ENOSPC, errno.EDQUOT):
        return errors.Exhausted(
            f"cannot {what}: the pool is full, or its quota is used up",
            where,
            "add storage or raise the quota; `ceph df` shows both",
        )
    if number == FENCED:
        return errors.Unavailable(
            f"cannot {what}: the cluster has fenced this client",
            where,
            "it connects anew on the next attempt; `ceph osd blocklist ls` shows the entry",
        )
    if number in (errno.ETIMEDOUT, errno.EINTR):
        return errors.Unavailable(
            f"cannot {what}: the cluster did not answer in time",
            where,
            "look at `ceph -s`: monitors, OSDs and placement groups must be up",
        )
    if number in (errno.EINVAL, errno.EDOM, errno.ERANGE):
        return errors.Invalid(f"cannot {what}: Ceph calls the request invalid", where)
    if number in (errno.EOPNOTSUPP, errno.ENOSYS):
        return errors.Unsupported(f"cannot {what}: this cluster cannot do it", where)
    name = errno.errorcode.get(number, str(number))
    return errors.Unavailable(f"cannot {what} ({name})", where, "look at `ceph -s`")
