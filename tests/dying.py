"""Runs Holdfast so that it is killed, as by SIGKILL, at one call of one of its functions.

    HOLDFAST_DIE="holdfast.node.syscalls.mount 2 after" python -P tests/dying.py csi ...

The process ends before the second call of that function, or right after it. Nothing is
replaced besides: all calls do what they do.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import signal
import sys
from collections.abc import Callable
from typing import Any


def arm(text: str) -> None:
    """Wrap the function that `text` names: `module.function count before|after`."""
    name, count, moment = text.split()
    left = int(count)
    module_name, _, function_name = name.rpartition(".")
    module = importlib.import_module(module_name)
    function: Callable[..., Any] = getattr(module, function_name)

    def is_time(now: str) -> bool:
        return left == 0 and moment == now

    @functools.wraps(function)
    def called(*arguments: Any, **named: Any) -> Any:
        nonlocal left
        left -= 1
        if is_time("before"):
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*arguments, **named)
        if is_time("after") and not inspect.isawaitable(result):
            os.kill(os.getpid(), signal.SIGKILL)
        return _then_die(result) if is_time("after") else result

    setattr(module, function_name, called)


async def _then_die(awaited: Any) -> None:
    await awaited
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    from holdfast.cli import main

    if "HOLDFAST_DIE" in os.environ:
        arm(os.environ["HOLDFAST_DIE"])
    sys.exit(main.main())
