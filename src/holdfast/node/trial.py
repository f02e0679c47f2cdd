"""Finds out whether this machine can run sandboxes by running one.

Programs that are missing and rights that are missing have plain answers; whether the
kernel allows all of it (overlays, namespaces in a container of somebody else's) is only
known after a try. It takes some milliseconds, once, when the node agent starts.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

from holdfast.backends import errors
from holdfast.kit import process
from holdfast.node import sandbox


async def obstacle(directory: Path) -> str:
    """Return why containers cannot be run, "" when they can."""
    known = sandbox.obstacle()
    if known:
        return known
    await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
    place = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix=".trial-", dir=directory))
    view = sandbox.View(place / "view")
    program = sandbox.Program((shutil.which("true") or "true",), "trial")
    try:
        await asyncio.to_thread(view.make, program)
        said = sandbox.arguments(program, view.root)
        await process.run(["bwrap", *said, "--", *sandbox.become(program.identity), *program.argv])
    except (errors.BackendError, OSError, process.CommandFailed) as error:
        return f"a trial failed: {error}"
    finally:
        await asyncio.to_thread(_remove, view, place)
    return ""


def _remove(view: sandbox.View, place: Path) -> None:
    try:
        view.remove()
        place.rmdir()
    except (errors.BackendError, OSError):
        # Left for the administrator to see; the next trial uses another place.
        return
