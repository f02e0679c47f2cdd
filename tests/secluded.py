"""A Python that sees another machine: started in mounts of its own, which commands prepare.

What is mounted over or mounted broken there is nobody else's, and it is gone with the last
process. Holdfast, its containers and its commands all run with it.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path


def python(directory: Path, *commands: Sequence[str]) -> str:
    """Write the program that runs the commands in mounts of its own and then is Python."""
    lines = [shlex.join(command) for command in commands]
    program = directory / "python"
    inner = "; ".join(["set -e", *lines, f'exec {shlex.quote(sys.executable)} "$@"'])
    outer = ["unshare", "--mount", "--propagation", "private", "sh", "-c", inner, "python"]
    program.write_text(f'#!/bin/sh\nexec {shlex.join(outer)} "$@"\n')
    program.chmod(0o755)
    return str(program)
