"""A small HTTP/1.1 client over TLS on kept connections, so that the client is not what is measured.

It speaks only what the API server answers with: a Content-Length, or chunks for a watch.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import yaml


class Connection:
    """One kept connection; requests on it are made one after the other."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext, token: str) -> None:
        self._address = (host, port)
        self._context = context
        self._token = token
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def request(
        self, method: str, path: str, body: object = None, content_type: str = "application/json"
    ) -> Any:
        """Send a request and decode the answer; raises RuntimeError on an error status."""
        status, headers = await self._send(method, path, body, content_type)
        assert self._reader is not None
        content = await self._reader.readexactly(int(headers[b"content-length"]))
        if status >= 400:
            raise RuntimeError(f"{method} {path}: {status} {content[:300]!r}")
        return msgspec.json.decode(content)

    async def watch(self, path: str) -> AsyncIterator[Any]:
        """The events of a watch."""
        await self._send("GET", path, None, "application/json")
        assert self._reader is not None
        rest = b""
        while size := int((await self._reader.readline()).strip() or b"0", 16):
            rest += await self._reader.readexactly(size)
            await self._reader.readexactly(2)
            *lines, rest = rest.split(b"\n")
            for line in lines:
                yield msgspec.json.decode(line)

    async def _send(
        self, method: str, path: str, body: object, content_type: str
    ) -> tuple[int, dict[bytes, bytes]]:
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(
                *self._address, ssl=self._context, limit=1 << 26
            )
        content = b"" if body is None else msgspec.json.encode(body)
        head = (
            f"{method} {path} HTTP/1.1\r\nhost: holdfast\r\nauthorization: Bearer {self._token}\r\n"
            f"content-type: {content_type}\r\ncontent-length: {len(content)}\r\n\r\n"
        )
        self._writer.write(head.encode() + content)
        assert self._reader is not None
        answer = await self._reader.readuntil(b"\r\n\r\n")
        first, *lines = answer[:-4].split(b"\r\n")
        headers = {}
        for line in lines:
            name, _, value = line.partition(b":")
            headers[name.lower()] = value.strip()
        return int(first.split()[1]), headers

    def close(self) -> None:
        """Drop the connection."""
        if self._writer is not None:
            self._writer.close()


class Cluster:
    """What a kubeconfig names."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster = config["clusters"][0]["cluster"]
        host, _, port = cluster["server"].removeprefix("https://").rpartition(":")
        self.host, self.port = host.strip("[]"), int(port)
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self._context = ssl.create_default_context(cadata=authority)
        self._token = config["users"][0]["user"]["token"]

    def connect(self) -> Connection:
        """A new connection."""
        return Connection(self.host, self.port, self._context, self._token)
