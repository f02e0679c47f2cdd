"""The door to pyVmomi, opened at the first use.

Other modules take `vim`, `vmodl` and `pbm` from here and use them as if they had imported
the library. A machine without it loads this package all the same and is told what to
install when a vCenter is really needed.
"""

from __future__ import annotations

import importlib
from typing import Any

from holdfast.backends import errors


class _Lazy:
    """One of pyVmomi's namespaces."""

    def __init__(self, module: str, name: str = "") -> None:
        self._module = module
        self._name = name
        self._loaded: Any = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self._loaded is None:
            self._loaded = _load(self._module, self._name)
        return getattr(self._loaded, name)


def _load(module: str, name: str) -> Any:
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise errors.Unsupported(
            f"the Python package pyvmomi is not installed ({error})",
            "vSphere",
            "install it: pip install 'holdfast[vsphere]'",
        ) from error
    return getattr(found, name) if name else found


vim: Any = _Lazy("pyVmomi", "vim")
vmodl: Any = _Lazy("pyVmomi", "vmodl")
pbm: Any = _Lazy("pyVmomi", "pbm")
soap: Any = _Lazy("pyVmomi.SoapAdapter")
types: Any = _Lazy("pyVmomi.VmomiSupport")
