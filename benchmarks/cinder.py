"""Claims on a real Cinder: forty at once, next to the same forty creations by openstacksdk alone.

Cinder's own log of requests says how many each way took, so neither counts for itself.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.claims import add_class, bind, claim
from benchmarks.instance import instance
from benchmarks.report import Figure

COUNT = 40
# As many at a time as Holdfast has threads for one cloud.
THREADS = 10
POLL_SECONDS = 0.5
MOST = 1.5
TESTS = Path(__file__).parent.parent / "tests"
_REQUEST = re.compile(rb" (GET|POST|PUT|DELETE) http\S+/v3/")
CLASSES = "/apis/storage.k8s.io/v1/storageclasses"


def forty() -> list[Figure]:
    """Seconds and requests of both ways."""
    sys.path.insert(0, str(TESTS))
    warnings.simplefilter("ignore")
    from servers.openstack import catalog, cloud

    directory = Path(tempfile.mkdtemp(prefix="holdfast-bench-openstack-"))
    made = cloud.Cloud(directory, nova=False)
    log = directory / "log/cinder.log"
    try:
        made.start()
        catalog.make_types(made.ports)
        catalog.set_quota(made.ports, volumes=200, gigabytes=1000)
        # What starts slowly, on either side, is not what is measured.
        _alone(made.ports, 4)
        alone, asked_alone = _counted(log, lambda: _alone(made.ports, COUNT))
        _clear(made.ports)
        ours, asked = _counted(log, lambda: _claims(made.cloud_conf))
    finally:
        made.stop()
        shutil.rmtree(directory, ignore_errors=True)
    return [
        Figure(f"{COUNT} volumes by openstacksdk alone", alone, "s", less=True),
        Figure(f"{COUNT} volumes by openstacksdk alone: requests", asked_alone / COUNT, "a volume"),
        Figure(f"{COUNT} claims of Cinder until all are Bound", ours, "s", MOST * alone, less=True),
        Figure(f"{COUNT} claims of Cinder: requests", asked / COUNT, "a claim", less=True),
    ]


def _counted(log: Path, work: Any) -> tuple[float, int]:
    before = log.stat().st_size
    seconds: float = work()
    with log.open("rb") as stream:
        stream.seek(before)
        return seconds, len(_REQUEST.findall(stream.read()))


def _alone(ports: Any, count: int) -> float:
    """Create volumes as a program would that does nothing else."""
    from servers.openstack import catalog

    with catalog.connected(ports, admin=False) as connection:
        storage = connection.block_storage

        def create(number: int) -> Any:
            volume = storage.create_volume(name=f"alone-{number}", size=1, volume_type="file")
            storage.wait_for_status(volume, "available", ["error"], POLL_SECONDS, 120)
            return volume

        started = time.monotonic()
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(create, range(count)))
        return time.monotonic() - started


def _clear(ports: Any) -> None:
    from servers.openstack import catalog

    with catalog.connected(ports, admin=False) as connection:
        for each in connection.block_storage.volumes():
            connection.block_storage.delete_volume(each)
        while list(connection.block_storage.volumes()):
            time.sleep(0.2)


def _claims(cloud_conf: Path) -> float:
    settings = f'[cinder.default]\ncloud_conf = "{cloud_conf}"\n'
    with instance(settings) as run:
        return asyncio.run(_bind(run))


async def _bind(run: Any) -> float:
    await add_class(run, "cinder", "cinder.csi.openstack.org", {"type": "file"})
    rate, _ = await bind(run, [claim(f"claim-{i}", "cinder", "1Gi") for i in range(COUNT)])
    return COUNT / rate
