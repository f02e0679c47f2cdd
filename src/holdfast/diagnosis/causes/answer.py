"""What is answered: the cause in one sentence, its place, and the command that ends it.

The invariant: `fix` can be pasted into a shell, apart from words in angle brackets, which only the
reader knows; comment lines say what the command does where it is not plain.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cause:
    """Why something stands still.

    `code` names the kind of cause for scripts. `waiting` says that nothing is wrong: the next step
    is somebody's to take, or is under way.
    """

    code: str
    what: str
    where: str
    fix: str = ""
    waiting: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer about one object: its state, the cause if it stands still, what else was seen."""

    subject: str
    state: str
    cause: Cause | None
    details: tuple[str, ...] = ()

    @property
    def wrong(self) -> bool:
        """Whether somebody has to repair something."""
        return self.cause is not None and not self.cause.waiting


def kubectl(*words: str, namespace: str = "") -> str:
    """Write a kubectl command, quoted for a shell."""
    scope = ["-n", namespace] if namespace else []
    return shlex.join(["kubectl", *scope, *words])


def lines(*commands: str) -> str:
    """Write several commands or comments, one below the other."""
    return "\n".join(command for command in commands if command)


def listed(names: Iterable[str], most: int = 5) -> str:
    """Write names for people, not more than they read."""
    found = list(names)
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + more
