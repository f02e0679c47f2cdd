"""The fixture `plane`: see tests/plane.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import cluster as clusters
from holdfast.testing.apiserver import api_server
from plane import Plane


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Plane]:
    async with api_server(tmp_path) as server, asyncio.TaskGroup() as group:
        made = Plane(server.client, group)
        made.start(made.informers, made.recorder)
        yield made
        await made.stop()


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[clusters.Cluster]:
    """Everything `holdfast up` runs, in this process."""
    (tmp_path / "data").mkdir()
    async with api_server(tmp_path) as server:
        made = clusters.Cluster(server.resources, server.client, tmp_path / "data")
        await made.start()
        yield made
        await made.crash()
        made.dispose()
