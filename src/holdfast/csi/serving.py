"""One gRPC server on one unix socket: started, kept, stopped without cutting a call off."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from holdfast.backends import errors
from holdfast.csi import sockets

log = logging.getLogger("holdfast.csi")

GRACE_SECONDS = 20.0


class Server:
    """Serves `handlers` at `path` from `start` to `stop`."""

    def __init__(self, path: Path, handlers: Sequence[grpc.GenericRpcHandler[Any, Any]]) -> None:
        self.path = path
        self._handlers = tuple(handlers)
        self._server: grpc.aio.Server | None = None
        self._file: tuple[int, int] | None = None

    async def start(self) -> None:
        """Begin to serve. Raises errors.Conflict when somebody else serves there."""
        sockets.prepare(self.path)
        server = grpc.aio.server()
        server.add_generic_rpc_handlers(self._handlers)
        try:
            server.add_insecure_port(f"{sockets.PREFIX}{self.path}")
            # Nobody can connect before the start, so nobody else ever does.
            self.path.chmod(0o600)
        except (RuntimeError, OSError) as error:
            raise errors.Unavailable(
                "cannot be served on", str(self.path), "choose another path"
            ) from error
        await server.start()
        self._server = server
        self._file = sockets.identity(self.path)
        log.info("serving", extra={"socket": str(self.path)})

    @property
    def lost(self) -> bool:
        """Whether the socket file is gone or another's, so that nobody can call."""
        return self._server is not None and sockets.identity(self.path) != self._file

    async def stop(self) -> None:
        """Take no more calls, let running ones end, and remove the socket."""
        if self._server is None:
            return
        server, self._server = self._server, None
        lost = sockets.identity(self.path) != self._file
        await server.stop(GRACE_SECONDS)
        if not lost:
            sockets.remove(self.path, self._file)
