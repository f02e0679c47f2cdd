"""A program of its own that lets os-brick connect one volume to this machine.

It is run by a Python that has os-brick, which may be another than Holdfast's,
and imports nothing of Holdfast: os-brick's libraries keep settings and threads
per process, and want versions of other packages. The question is JSON on
standard input, so that a password in it is in no argument list; the answer is
JSON on standard output.

Before os-brick is asked, its two helpers are forked, which keep the two
capabilities that os-brick names; this process and all that it starts itself
keep none.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import logging
import os
import sys
from typing import Any

_PR_CAPBSET_DROP = 24
# NFS and its like take the name of their mount from it.
_FILE_SYSTEMS = ("nfs", "glusterfs", "quobyte", "scality", "vzstorage")


def main() -> None:
    """Answer one question; what goes wrong is part of the answer."""
    asked = json.load(sys.stdin)
    # What libraries log may quote the question.
    logging.disable(logging.CRITICAL)
    try:
        answer = _answered(asked)
    except ImportError as error:
        answer = {"missing": str(error)}
    except Exception as error:  # the edge of this program: all there is to say goes to the caller
        answer = {"error": f"{type(error).__name__}: {_masked(str(error))}"}
    json.dump(answer, sys.stdout)


def _answered(asked: dict[str, Any]) -> dict[str, Any]:
    connector = importlib.import_module("os_brick.initiator.connector")
    _prepare(asked["directory"])
    if asked["command"] == "properties":
        found = connector.get_connector_properties("", asked["ip"], False, False, asked["host"])
        return {"properties": found}
    connection = asked["connection"]
    kind = connection["driver_volume_type"]
    made = connector.InitiatorConnector.factory(kind, "", **_options(kind, asked))
    if asked["command"] == "connect":
        return {"device": _text(made.connect_volume(connection))}
    if asked["command"] == "extend":
        return {"size": made.extend_volume(connection)}
    made.disconnect_volume(connection, asked.get("device"), force=False)
    return {}


def _prepare(directory: str) -> None:
    config = importlib.import_module("oslo_config.cfg").CONF
    lockutils = importlib.import_module("oslo_concurrency.lockutils")
    lockutils.set_defaults(directory)
    config([], project="holdfast", default_config_files=[], default_config_dirs=[])
    importlib.import_module("os_brick").setup(config)
    if os.geteuid() != 0:
        return
    fork = importlib.import_module("oslo_privsep.priv_context").Method.FORK
    privileged = importlib.import_module("os_brick.privileged")
    privileged.default.start(fork)
    privileged.brick_privsep_hide_output.start(fork)
    _drop_capabilities()


def _drop_capabilities() -> None:
    """Give up all capabilities, also for programs that are started from here."""
    system = ctypes.CDLL(None, use_errno=True)
    # The kernel refuses the first number that it does not know.
    for number in range(64):
        if system.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0) != 0:
            break
    capabilities = importlib.import_module("oslo_privsep.capabilities")
    capabilities.drop_all_caps_except((), (), ())


def _options(kind: str, asked: dict[str, Any]) -> dict[str, Any]:
    if kind == "rbd":
        # A device of the kernel's, not a handle in this process.
        return {"do_local_attach": True}
    if kind in _FILE_SYSTEMS:
        return {f"{kind}_mount_point_base": f"{asked['directory']}/mounts"}
    return {}


def _text(device: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value.decode() if isinstance(value, bytes) else value for key, value in device.items()
    }


def _masked(text: str) -> str:
    try:
        masked = importlib.import_module("oslo_utils.strutils").mask_password(text)
    except ImportError:
        return ""
    return str(masked)[:500]


if __name__ == "__main__":
    main()
