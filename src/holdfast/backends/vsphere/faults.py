"""What vCenter's faults mean here, and the words for them.

One table says which of our errors a fault becomes. A fault's own text is kept, because
administrators search for it; a remedy is added where there is one. Faults never carry a
password, and neither do our texts.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
from collections.abc import Iterator
from typing import Any

from holdfast.backends import errors
from holdfast.backends.errors import BackendError
from holdfast.backends.vsphere.sdk import types, vim, vmodl

# Class name of the fault (or of one it is derived from): our error, remedy. First match wins.
TABLE: tuple[tuple[str, type[BackendError], str], ...] = (
    ("vim.fault.InvalidLogin", errors.Unauthorized, "correct user and password of the vCenter"),
    (
        "vim.fault.NoPermission",
        errors.Unauthorized,
        "give the user's role this privilege: holdfast prepare vsphere roles",
    ),
    ("vim.fault.NotAuthenticated", errors.Unauthorized, "the session ended; it is opened anew"),
    ("vim.fault.FileNotFound", errors.NotFound, ""),
    # Not NotFound: of a datastore that is out of sight nobody knows what is gone.
    ("vim.fault.InaccessibleDatastore", errors.Unavailable, "check the datastore on its hosts"),
    ("vim.fault.InvalidDatastore", errors.Unavailable, "check the datastore's name"),
    ("vmodl.fault.ManagedObjectNotFound", errors.NotFound, ""),
    ("vim.fault.NotFound", errors.NotFound, ""),
    ("vim.fault.FileAlreadyExists", errors.AlreadyExists, ""),
    ("vim.fault.AlreadyExists", errors.AlreadyExists, ""),
    ("vim.fault.DuplicateName", errors.AlreadyExists, ""),
    ("vim.fault.NoDiskSpace", errors.Exhausted, "free space on the datastore, or use another"),
    ("vim.fault.InsufficientResourcesFault", errors.Exhausted, ""),
    ("vim.fault.FileLocked", errors.Conflict, "another VM or a backup holds the disk"),
    ("vim.fault.ResourceInUse", errors.Conflict, ""),
    ("vim.fault.TaskInProgress", errors.Conflict, "another task works on it; it is tried again"),
    ("vim.fault.InvalidPowerState", errors.Conflict, ""),
    ("vim.fault.InvalidState", errors.Conflict, ""),
    ("vim.fault.ConcurrentAccess", errors.Conflict, "the VM was changed meanwhile; tried again"),
    ("vim.fault.CannotAccessFile", errors.Unavailable, "check the datastore on the VM's host"),
    ("vmodl.fault.HostCommunication", errors.Unavailable, "check the ESXi host and its network"),
    ("vmodl.fault.HostNotConnected", errors.Unavailable, "reconnect the ESXi host"),
    ("vim.fault.HostConnectFault", errors.Unavailable, "check the ESXi host"),
    ("vim.fault.Timedout", errors.Unavailable, ""),
    ("vmodl.fault.MethodNotFound", errors.Unsupported, "this vCenter is too old for it"),
    ("vmodl.fault.NotSupported", errors.Unsupported, ""),
    ("vmodl.fault.NotImplemented", errors.Unsupported, ""),
    ("vmodl.fault.InvalidArgument", errors.Invalid, ""),
    ("vim.fault.InvalidName", errors.Invalid, ""),
    ("vmodl.fault.InvalidRequest", errors.Invalid, ""),
    ("vim.fault.InvalidDeviceSpec", errors.Conflict, "the VM was changed meanwhile; tried again"),
)


def translate(fault: BaseException, where: str) -> BackendError:
    """Return our error for a fault of pyVmomi's or a failure of the connection."""
    if isinstance(fault, errors.BackendError):
        return fault
    if isinstance(fault, ssl.SSLCertVerificationError):
        why = getattr(fault, "verify_message", "") or fault.args[-1]
        return errors.Unavailable(
            f"its certificate is not trusted ({why})",
            where,
            "set ca-file or thumbprint, or insecure-flag for a test",
        )
    if isinstance(fault, http.client.HTTPException | socket.gaierror | OSError):
        return errors.Unavailable(
            f"vCenter did not answer ({_words(fault)})",
            where,
            "check address, port and network; it is tried again",
        )
    return _vmodl(fault, where)


@contextlib.contextmanager
def translated(where: str) -> Iterator[None]:
    """Turn what pyVmomi and the connection raise in the block into our errors."""
    try:
        yield
    except errors.BackendError:
        raise
    except Exception as error:
        raise translate(error, where) from error


def name_of(fault: Any) -> str:
    """Return a fault's short class name, `NoDiskSpace`."""
    return type(fault).__name__.rsplit(".", 1)[-1]


def _vmodl(fault: BaseException, where: str) -> BackendError:
    if not isinstance(fault, vmodl.MethodFault):
        return errors.Unavailable(
            f"vCenter's answer could not be used ({type(fault).__name__}: {_words(fault)})",
            where,
            "it is tried again",
        )
    kind, remedy = _entry(fault)
    return kind(f"{_text(fault)} ({name_of(fault)})", _place(fault, where), remedy)


def _entry(fault: Any) -> tuple[type[BackendError], str]:
    for name, kind, remedy in TABLE:
        known = types.GetVmodlType(name)
        if isinstance(fault, known):
            return kind, remedy
    if isinstance(fault, vim.fault.FileFault):
        return errors.Unavailable, ""
    return errors.Unavailable, "look at the task in vCenter; it is tried again"


def _text(fault: Any) -> str:
    said = [str(fault.msg or "")] if getattr(fault, "msg", None) else []
    said += [str(each.message) for each in (fault.faultMessage or ()) if each.message]
    privilege = getattr(fault, "privilegeId", None)
    if privilege:
        said.append(f"missing privilege {privilege}")
    prop = getattr(fault, "invalidProperty", None)
    if prop:
        said.append(f"property {prop}")
    return "; ".join(said) or "vCenter refused"


def _place(fault: Any, where: str) -> str:
    file = getattr(fault, "file", None)
    return f"{where}: {file}" if file and str(file) not in where else where


def _words(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).split("\n")[0][:200] or type(error).__name__
