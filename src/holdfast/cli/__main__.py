"""Runs the command as `python -m holdfast.cli`, which is how `up --detach` starts its child."""

from __future__ import annotations

import sys

from holdfast.cli.main import main

sys.exit(main())
