"""Where the tests of this package run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from holdfast.runtime.access import Access


@dataclass(frozen=True, slots=True)
class Cluster:
    """A way in, and a file that says the same to a program."""

    access: Access
    kubeconfig: Path
    real: bool
