"""One command at a time on a node, and how its end is judged.

The turn is a lock file on the node itself, held by the command: a service that was killed leaves
its last command running there, and the next life must not look or act before that has ended.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.heketi import errors
from holdfast.heketi.executors.protocol import Output

LOCK = "/run/holdfast-heketi.lock"
_WAIT_SECONDS = 900


def taken(argv: Sequence[str]) -> list[str]:
    """The command that waits for its turn first."""
    return ["flock", "-w", str(_WAIT_SECONDS), LOCK, *argv]


def judge(host: str, argv: Sequence[str], done: Output, check: bool) -> None:
    """Raise `ExecutionFailed` for a command that had to succeed."""
    if check and done.code != 0:
        raise errors.ExecutionFailed(host, " ".join(argv), done.stderr or done.stdout, done.code)
