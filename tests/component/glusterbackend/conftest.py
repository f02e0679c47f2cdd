"""A Heketi service on a socket, with disks that do not exist, and the backend on it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cluster import Cluster
from heketiservice import Served, served
from holdfast.testing.apiserver import api_server


@pytest.fixture
async def heketi(tmp_path: Path) -> AsyncIterator[Served]:
    """One cluster of three nodes, each with two disks of 500 GiB."""
    async with served(tmp_path / "heketi") as made:
        await made.running.cluster()
        yield made


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """Everything `holdfast up` runs, in this process."""
    (tmp_path / "data").mkdir()
    async with api_server(tmp_path) as server:
        made = Cluster(server.resources, server.client, tmp_path / "data")
        await made.start()
        yield made
        await made.crash()
        made.dispose()
