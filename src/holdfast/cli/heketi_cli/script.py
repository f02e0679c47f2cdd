"""The entry point of the program `heketi-cli`."""

from __future__ import annotations

import sys

from holdfast.cli import main as holdfast


def main() -> int:
    """Run it like `holdfast heketi-cli`."""
    return holdfast.main(["heketi-cli", *sys.argv[1:]])
