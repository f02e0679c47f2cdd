"""What a request can fail with: a status code and a line of text, as Heketi's clients expect.

    Refused                 any answer that is not a success
     +- NotFound            404
     +- Conflict            409
     +- Invalid             400
     +- Busy                429
     +- NoSpace             500, with what is missing
    ExecutionFailed         a command on a node failed: which, where, what it said

`NoSpace` begins with the two words that clients look for and goes on with the explanation.
"""

from __future__ import annotations

ID_NOT_FOUND = "Id not found"
IN_USE = "The target exists, contains other items, or is in use."
NO_REPLACEMENT = "No Replacement was found for resource requested to be removed"


class Refused(Exception):
    """An answer that is not a success."""

    status = 500

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.status = status or type(self).status


class NotFound(Refused):
    """There is nothing with this id."""

    status = 404

    def __init__(self, text: str = ID_NOT_FOUND) -> None:
        super().__init__(text)


class Conflict(Refused):
    """What exists stands against it."""

    status = 409

    def __init__(self, text: str = IN_USE) -> None:
        super().__init__(text)


class Invalid(Refused):
    """The request says something that cannot be."""

    status = 400


class Busy(Refused):
    """Too much is being done already."""

    status = 429

    def __init__(self) -> None:
        super().__init__("Server busy. Retry operation later.")


class NoSpace(Refused):
    """No assignment of bricks to devices keeps all rules; the text says which one cannot be."""


class ExecutionFailed(Exception):
    """A command on a node failed."""

    def __init__(self, host: str, what: str, said: str, code: int | None = None) -> None:
        super().__init__(f"{host}: {what}: {said.strip() or f'exit {code}'}")
        self.host = host
        self.said = said
        self.code = code


class Unreachable(ExecutionFailed):
    """The node itself did not answer; nothing is known about what it did."""
