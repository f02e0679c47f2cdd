"""The storage systems of one process: backends and node sides, opened when first used.

What a section of `holdfast.toml` says is read at once, so a mistake in it stops the start; a
library that is missing does not, because nobody may need it. A kind without any section is served
too: a class may carry the whole connection.

Invariant: opening never raises. What cannot be opened is a `MissingBackend`, or a node side's
`BackendError` at the moment it is used, and is tried again at the next use.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

from holdfast.backends import errors, registry
from holdfast.backends.missing import MissingBackend
from holdfast.backends.protocol import Backend, NodeSide
from holdfast.backends.registry import Instances
from holdfast.backends.secretrefs import SecretSource, SecretUser
from holdfast.controllers.provisioners import Served

log = logging.getLogger("holdfast.server")

DIRECTORY = "backends"


@runtime_checkable
class _Closing(Protocol):
    def close(self) -> Awaitable[None]: ...


class Backends:
    """The backends of storage systems by kind; `opened` are those that need no opening.

    `secrets` reads the Secrets that the configuration of a storage system names.
    """

    def __init__(
        self,
        data_dir: Path,
        instances: Mapping[str, Instances],
        opened: Mapping[str, Backend],
        secrets: SecretSource | None = None,
    ) -> None:
        self._root = data_dir / DIRECTORY
        self._instances = instances
        self._opened = dict(opened)
        self._secrets = secrets

    def open_configured(self) -> None:
        """Open what has a section; raises errors.Invalid for one that is wrong."""
        for kind in self._instances:
            found = self.open(kind)
            if not isinstance(found, MissingBackend):
                continue
            if isinstance(found.error, errors.Invalid):
                raise found.error
            log.warning("backend not available", extra={"backend": kind, "why": str(found.error)})

    def open(self, kind: str) -> Backend:
        """Return the backend of a kind."""
        if kind not in self._opened:
            try:
                self._opened[kind] = self._made(kind)
            except errors.BackendError as error:
                return MissingBackend(kind, error)
        return self._opened[kind]

    def opener(self, kind: str) -> Callable[[], Backend]:
        """Return what opens the kind at its first use."""
        return partial(self.open, kind)

    def configured(self) -> tuple[str, ...]:
        """Return the kinds that have a section, and those that need none."""
        return tuple(dict.fromkeys((*self._opened, *self._instances)))

    def served(self) -> dict[str, Served]:
        """Return every name that a class may give, with what opens its backend."""
        names = registry.PROVISIONERS.items()
        return {name: Served(entry, self.opener(entry.backend)) for name, entry in names}

    def drivers(self) -> dict[str, Callable[[], Backend]]:
        """Return what opens the backend of each CSI driver."""
        return {name: self.opener(kind) for name, kind in registry.DRIVERS.items()}

    async def close(self) -> None:
        """Close what was opened."""
        while self._opened:
            _, backend = self._opened.popitem()
            await backend.close()

    def _made(self, kind: str) -> Backend:
        make = registry.BACKENDS.get(kind)
        if make is None:
            raise _unknown(kind)
        try:
            found = make(self._instances.get(kind, {}), self._root / kind)
        except ImportError as error:
            raise _without_library(kind, error) from error
        _let_read(found, self._secrets)
        return found


class NodeSides(Mapping[str, NodeSide]):
    """The node sides of one node by kind, opened when they are looked up.

    Looking one up may raise errors.BackendError; asking whether it is there never does.
    """

    def __init__(
        self,
        directory: Path,
        instances: Mapping[str, Instances],
        extra: Mapping[str, NodeSide],
        secrets: SecretSource | None = None,
    ) -> None:
        self._root = directory / DIRECTORY
        self._instances = instances
        self._secrets = secrets
        self._opened = dict(extra)
        self._names = tuple(dict.fromkeys((*registry.NODE_SIDES, *extra)))

    def __getitem__(self, kind: str) -> NodeSide:
        """Open, or return what is open. Raises KeyError for a kind there is none of."""
        if kind not in self._opened:
            make = registry.NODE_SIDES[kind]
            try:
                side = make(self._instances.get(kind, {}), self._root / kind)
            except ImportError as error:
                raise _without_library(kind, error) from error
            _let_read(side, self._secrets)
            self._opened[kind] = side
        return self._opened[kind]

    def __contains__(self, kind: object) -> bool:
        """Whether there is one; it is not opened for that."""
        return kind in self._names

    def __iter__(self) -> Iterator[str]:
        """Name all, opened or not."""
        return iter(self._names)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._names)

    async def close(self) -> None:
        """Close what was opened and has something to close."""
        while self._opened:
            _, side = self._opened.popitem()
            if isinstance(side, _Closing):
                await side.close()


def _let_read(opened: object, secrets: SecretSource | None) -> None:
    """Give the way to Secrets to what may have one named in its configuration."""
    if secrets is not None and isinstance(opened, SecretUser):
        opened.use_secrets(secrets)


def _unknown(kind: str) -> errors.BackendError:
    known = ", ".join(sorted({*registry.BACKENDS, "local"}))
    return errors.Unsupported(f"this version has no {kind} backend", "", f"it has: {known}")


def _without_library(kind: str, error: ImportError) -> errors.BackendError:
    return errors.Unsupported(
        f"the library {error.name or error} is missing, which the {kind} backend needs",
        "",
        f"install it on this machine (docs/how-to/install.md) and use {kind} again",
    )
