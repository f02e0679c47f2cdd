"""What component tests share: the API over a real socket, without any controller."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from holdfast.testing.apiserver import api_server
from wire import Wire


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Wire]:
    """An API server of the test's own and a plain HTTP connection to it."""
    async with api_server(tmp_path) as server:
        transport = httpx2.AsyncHTTPTransport(uds=str(server.socket), verify=False)
        async with httpx2.AsyncClient(
            base_url="http://holdfast", transport=transport, trust_env=False, timeout=10
        ) as http:
            yield Wire(server, http)
