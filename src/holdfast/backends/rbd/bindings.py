"""Finds Ceph's Python modules, which come from the distribution and not from PyPI.

Debian builds `rados` and `rbd` for its own Python and puts them in a directory
that an environment of its own does not look into. Exactly these two files are
loaded from there; naming the whole directory would let its other packages
replace ours.

Invariant: either both modules are loaded, or the error names the packages and,
where modules for another Python lie there, that Python's version.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import re
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.backends import errors

PACKAGES = "python3-rados python3-rbd"
NAMES = ("rados", "rbd")
# Debian's directory, and those of Fedora and its relatives.
DIRECTORIES = (
    Path("/usr/lib/python3/dist-packages"),
    *(
        Path(f"/usr/{lib}/python3.{sys.version_info.minor}/site-packages")
        for lib in ("lib64", "lib")
    ),
)
_LOCK = threading.Lock()


@dataclass(frozen=True, slots=True)
class Bindings:
    """The two modules. They have no type information, so what they hold is Any."""

    rados: Any
    rbd: Any


def load(directories: Sequence[Path] = DIRECTORIES) -> Bindings:
    """Return the modules. Raises errors.Unavailable naming the packages to install."""
    with _LOCK:
        # rbd imports rados by its name, so the order matters.
        found = [_module(name, directories) for name in NAMES]
    return Bindings(*found)


def _module(name: str, directories: Sequence[Path]) -> Any:
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.find_spec(name) or _spec_in(name, directories)
    if spec is None or spec.loader is None:
        raise _missing(name, directories)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except ImportError as error:
        del sys.modules[name]
        raise errors.Unavailable(
            f"Ceph's Python module {name} cannot be loaded ({error})",
            str(spec.origin),
            f"reinstall the packages {PACKAGES} and the Ceph libraries they belong to",
        ) from error
    return module


def _spec_in(name: str, directories: Sequence[Path]) -> importlib.machinery.ModuleSpec | None:
    for directory in directories:
        for suffix in importlib.machinery.EXTENSION_SUFFIXES:
            path = directory / f"{name}{suffix}"
            if path.is_file():
                loader = importlib.machinery.ExtensionFileLoader(name, str(path))
                return importlib.util.spec_from_file_location(name, path, loader=loader)
    return None


def _missing(name: str, directories: Sequence[Path]) -> errors.Unavailable:
    ours = f"3.{sys.version_info.minor}"
    for directory in directories:
        for path in directory.glob(f"{name}.cpython-*.so"):
            tag = re.search(r"cpython-3(\d+)", path.name)
            if tag and f"3.{tag[1]}" != ours:
                return errors.Unavailable(
                    f"Ceph's Python module {name} is here, but for Python 3.{tag[1]}; "
                    f"Holdfast runs with Python {ours}",
                    str(path),
                    f"make Holdfast's environment with python3.{tag[1]} "
                    f"(PYTHON=python3.{tag[1]} tools/setup run)",
                )
    return errors.Unavailable(
        f"Ceph's Python module {name} is not on this machine",
        "Ceph bindings",
        f"apt-get install {PACKAGES}",
    )
