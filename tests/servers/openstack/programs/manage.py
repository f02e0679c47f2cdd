"""manage.py: run the *-manage commands given on standard input, one a line: MODULE ARGUMENTS.

Each runs in a fork, so that the imports are paid for once.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings

warnings.simplefilter("ignore")

import one_process  # noqa: E402, F401

for line in sys.stdin:
    module, *arguments = line.split()
    pid = os.fork()
    if pid == 0:
        sys.argv = [module.split(".")[0] + "-manage", *arguments]
        sys.exit(importlib.import_module(module).main())
    if os.waitpid(pid, 0)[1] != 0:
        sys.exit(f"failed: {line}")
