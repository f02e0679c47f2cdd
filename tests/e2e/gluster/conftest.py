"""A GlusterFS cluster with a Heketi service that knows it, and Holdfast beside them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import machine
from e2e.heketi.conftest import Heketi
from machine import Machine
from servers.gluster import Cluster


@dataclass
class Site:
    """All of it. `service` and `holdfast` may be restarted by a test that starts them again."""

    cluster: Cluster
    heketi: Heketi
    holdfast: Machine

    def bricks(self, volume: str) -> list[Path]:
        """Where the machine itself finds a volume's bricks, through the roots of the nodes."""
        return self.heketi.bricks(next(each for each in self._infos() if each["name"] == volume))

    def volumes(self) -> list[str]:
        """The names of the volumes Heketi has."""
        return sorted(each["name"] for each in self._infos())

    def _infos(self) -> list[dict[str, Any]]:
        """All volumes; one that is deleted meanwhile is none."""
        keys = self.heketi.get("/volumes")["volumes"]
        answers = [self.heketi.ask("GET", f"/volumes/{key}") for key in keys]
        return [answer.json() for answer in answers if answer.status_code != 404]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, kubectl_path: Path) -> Iterator[Site]:
    """Three nodes with a disk each, loaded into a service; Holdfast with two nodes."""
    directory = Path(tempfile.mkdtemp(prefix=f"hf-n6-{os.getpid()}-"))
    with Cluster(directory) as cluster:
        heketi = Heketi(cluster, tmp_path_factory.mktemp("heketi"))
        holdfast = Machine(tmp_path_factory.mktemp("holdfast"), kubectl_path)
        try:
            heketi.start()
            heketi.load("sdb", "sdc")
            holdfast.start("--nodes", "2")
            yield Site(cluster, heketi, holdfast)
        finally:
            holdfast.dispose()
            heketi.stop()
    if str(directory) not in Path("/proc/mounts").read_text():
        shutil.rmtree(directory)


@pytest.fixture
def clean(site: Site) -> Iterator[Site]:
    """Nothing of a test may be left: pods, claims, volumes, mounts."""
    yield site
    holdfast = site.holdfast
    holdfast.kubectl("delete", "pod,pvc", "--all", "--grace-period=1")

    def nothing() -> bool:
        return not holdfast.kubectl("get", "pv", "-o", "name") and not holdfast.mounts()

    machine.eventually(nothing, 60, "no volume and no mount is left")
    assert site.volumes() == []
