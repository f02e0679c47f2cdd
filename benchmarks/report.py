"""One measured figure, its target and the peer's figure, as a line of text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """`less` says that a smaller value is better; `peer` is the tuned Go stack's figure."""

    what: str
    value: float
    unit: str
    target: float | None = None
    peer: float | None = None
    less: bool = False

    @property
    def met(self) -> bool:
        """Whether the target is reached; true without one."""
        if self.target is None:
            return True
        return self.value <= self.target if self.less else self.value >= self.target

    def __str__(self) -> str:
        text = f"{self.what:<60} {self.value:>9.4g} {self.unit:<9}"
        if self.target is not None:
            sign = "<=" if self.less else ">="
            text += f" target {sign} {self.target:g} {'met' if self.met else 'MISSED'}"
        if self.peer is not None:
            ratio = self.peer / self.value if self.less else self.value / self.peer
            text += f", {ratio:.1f}x the peer's {self.peer:g}"
        return text
