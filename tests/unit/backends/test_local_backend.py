"""The local backend without loop devices and mounts: what lies on the disk, and when.

Loop devices are declared usable or not through the constructor, so these tests
do the same with and without root; nothing here attaches one.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from holdfast.backends import errors, protocol
from holdfast.backends.local.backend import LocalBackend
from holdfast.backends.protocol import VolumeRequest, VolumeSource

MIB = 1 << 20
GIB = 1 << 30
DIRECTORY = {"layout": "directory"}

Open = Callable[..., LocalBackend]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "volumes"


@pytest.fixture
async def reopen(root: Path) -> AsyncIterator[Open]:
    """Open the backend, as often as needed: each time like a new process."""
    made: list[LocalBackend] = []

    def _open(refusal: str = "") -> LocalBackend:
        made.append(LocalBackend(root, "node-1", loop_refusal=lambda: refusal))
        return made[-1]

    yield _open
    for backend in made:
        await backend.close()


def entries(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def test_it_offers_every_capability_it_has() -> None:
    backend = LocalBackend(Path("/nowhere"), "n")
    for capability in (
        protocol.Backend,
        protocol.Expander,
        protocol.Snapshotter,
        protocol.Cloner,
        protocol.CapacityReporter,
    ):
        assert isinstance(backend, capability)
    assert not isinstance(backend, protocol.Attacher)


async def test_an_image_volume_is_a_sparse_file_of_whole_blocks(reopen: Open, root: Path) -> None:
    volume = await reopen().create_volume(VolumeRequest("pvc-1", 10 * MIB + 1))
    image = (root / "pvc-1/disk.img").stat()
    assert volume.size == image.st_size == 10 * MIB + 4096
    assert image.st_blocks == 0
    assert image.st_mode & 0o777 == 0o600
    assert volume.topology == {"kubernetes.io/hostname": "node-1"}
    assert volume.context["path"] == str(root / "pvc-1/disk.img")


async def test_a_directory_volume_lets_every_pod_write_but_nobody_on_the_machine(
    reopen: Open, root: Path
) -> None:
    await reopen("no loop devices here").create_volume(VolumeRequest("pvc-1", MIB, DIRECTORY))
    assert (root / "pvc-1/data").stat().st_mode & 0o777 == 0o777
    assert (root / "pvc-1").stat().st_mode & 0o777 == 0o700


async def test_an_equal_request_finds_the_volume_also_after_it_has_grown(reopen: Open) -> None:
    request = VolumeRequest("pvc-1", 8 * MIB)
    first = await reopen().create_volume(request)
    assert await reopen().create_volume(request) == first
    await reopen().expand("pvc-1", 16 * MIB)
    assert (await reopen().create_volume(request)).size == 16 * MIB


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (VolumeRequest("pvc-1", 16 * MIB), "size is 8388608, not 16777216"),
        (VolumeRequest("pvc-1", 8 * MIB, DIRECTORY), "layout is image, not directory"),
        (VolumeRequest("pvc-1", 8 * MIB, mode="Block"), "volumeMode is Filesystem, not Block"),
    ],
)
async def test_a_different_request_under_the_same_name_is_told_the_difference(
    reopen: Open, other: VolumeRequest, difference: str
) -> None:
    await reopen().create_volume(VolumeRequest("pvc-1", 8 * MIB))
    with pytest.raises(errors.AlreadyExists, match=difference):
        await reopen().create_volume(other)


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "", "a\0b", "x" * 300, ".."])
async def test_a_name_cannot_lead_out_of_the_root(reopen: Open, name: str) -> None:
    backend = reopen()
    for call in (
        backend.create_volume(VolumeRequest(name, MIB, DIRECTORY)),
        backend.create_snapshot(name, "pvc-1"),
    ):
        with pytest.raises(errors.Invalid, match="cannot be the name"):
            await call


@pytest.mark.parametrize("id", ["../x", "a/b", ".hidden", "", "a\0b", "x" * 300, ".."])
async def test_an_id_no_volume_can_have_is_of_none_and_leads_nowhere(
    reopen: Open, tmp_path: Path, id: str
) -> None:
    outside = tmp_path / "x"
    outside.mkdir()
    (outside / "volume.json").write_text("{}")
    backend = reopen()
    await backend.delete_volume(id)
    await backend.delete_snapshot(id)
    for call in (
        backend.get_volume(id),
        backend.get_snapshot(id),
        backend.expand(id, MIB),
        backend.create_snapshot("snapshot-1", id),
        backend.create_volume(
            VolumeRequest("b", MIB, DIRECTORY, source=VolumeSource("volume", id))
        ),
    ):
        with pytest.raises(errors.NotFound):
            await call
    assert (outside / "volume.json").exists()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"fstyp": "ext4"}, 'unknown parameter "fstyp".*did you mean "fsType".*path, layout'),
        ({"fsType": "ext5"}, 'did you mean "ext4".*ext4, xfs, btrfs'),
        ({"layout": "file"}, "possible values: image, directory"),
        ({"path": "relative"}, "absolute directory"),
        ({"path": "/srv/../etc"}, "absolute directory"),
        ({"fsType": "xfs", "csi.storage.k8s.io/fstype": "ext4"}, "keep only fsType"),
        ({"fsType": "xfs"}, "xfs cannot be made on 8Mi.*300Mi or more"),
        ({"fsType": "btrfs"}, "btrfs cannot be made on 8Mi.*109Mi or more"),
    ],
)
async def test_bad_parameters_are_named(
    reopen: Open, parameters: dict[str, str], message: str
) -> None:
    with pytest.raises(errors.Invalid, match=message):
        await reopen().create_volume(VolumeRequest("pvc-1", 8 * MIB, parameters))


async def test_raw_blocks_need_the_image_layout(reopen: Open) -> None:
    with pytest.raises(errors.Invalid, match="layout: image"):
        await reopen().create_volume(VolumeRequest("pvc-1", MIB, DIRECTORY, mode="Block"))


async def test_without_loop_devices_images_are_refused_with_the_way_out(
    reopen: Open, root: Path
) -> None:
    with pytest.raises(errors.Unsupported, match=r"no root.*layout: directory.*not enforced"):
        await reopen("no root").create_volume(VolumeRequest("pvc-1", 8 * MIB))
    assert entries(root) == []


async def test_another_nodes_volume_is_not_made_here(reopen: Open) -> None:
    request = VolumeRequest("p", MIB, DIRECTORY, topology={"kubernetes.io/hostname": "node-2"})
    with pytest.raises(errors.Exhausted, match="node-2"):
        await reopen().create_volume(request)


async def test_what_does_not_fit_is_refused_with_the_numbers(reopen: Open, root: Path) -> None:
    backend = reopen()
    free = (await backend.capacity({})).available
    with pytest.raises(errors.Exhausted, match=r"does not fit: .* available \(.* free"):
        await backend.create_volume(VolumeRequest("big", free + GIB))
    with pytest.raises(errors.Exhausted):
        await backend.create_volume(VolumeRequest("big", free + GIB, DIRECTORY))
    assert [name for name in entries(root) if "big" in name] == []


async def test_promised_room_is_not_given_twice(reopen: Open) -> None:
    free = (await reopen().capacity({})).available
    half = free // 2 + GIB
    backend = reopen()
    results = await asyncio.gather(
        *(backend.create_volume(VolumeRequest(f"pvc-{n}", half)) for n in range(4)),
        return_exceptions=True,
    )
    assert sum(isinstance(result, protocol.Volume) for result in results) == 1
    # A new process learns what was promised before it.
    with pytest.raises(errors.Exhausted, match="1 existing image"):
        await reopen().create_volume(VolumeRequest("late", half))
    made = next(result.id for result in results if isinstance(result, protocol.Volume))
    with pytest.raises(errors.Exhausted):
        await backend.expand(made, free + GIB)
    await backend.delete_volume(made)
    await backend.create_volume(VolumeRequest("late", half))


async def test_capacity_falls_by_what_is_promised(reopen: Open) -> None:
    backend = reopen()
    before = await backend.capacity({})
    await backend.create_volume(VolumeRequest("pvc-1", GIB))
    after = await backend.capacity({})
    assert after.total == before.total
    assert abs(before.available - after.available - GIB) < 256 * MIB


async def test_deleting_removes_everything_and_may_be_repeated(reopen: Open, root: Path) -> None:
    backend = reopen()
    await backend.create_volume(VolumeRequest("pvc-1", MIB, DIRECTORY))
    locked = root / "pvc-1/data/locked"
    locked.mkdir()
    (locked / "file").write_text("x")
    locked.chmod(0o500)
    await backend.delete_volume("pvc-1")
    await backend.delete_volume("pvc-1")
    assert entries(root) == []
    with pytest.raises(errors.NotFound):
        await backend.get_volume("pvc-1")


async def test_a_deletion_does_not_follow_links_out_of_the_volume(
    reopen: Open, root: Path, tmp_path: Path
) -> None:
    backend = reopen()
    await backend.create_volume(VolumeRequest("pvc-1", MIB, DIRECTORY))
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("kept")
    (root / "pvc-1/data/link").symlink_to(outside)
    await backend.delete_volume("pvc-1")
    assert (outside / "file").read_text() == "kept"


async def test_a_half_done_deletion_is_finished_by_the_next(reopen: Open, root: Path) -> None:
    await reopen().create_volume(VolumeRequest("pvc-1", MIB, DIRECTORY))
    (root / "pvc-1").rename(root / ".deleted-pvc-1")
    assert (await reopen().list_volumes()).volumes == []
    findings = await reopen().checks()
    assert any(f.where.endswith(".deleted-pvc-1") for f in findings)
    await reopen().delete_volume("pvc-1")
    assert entries(root) == []


async def test_a_half_done_create_is_listed_completed_or_removed(reopen: Open, root: Path) -> None:
    for name in ("pvc-1", "pvc-2"):
        await asyncio.to_thread((root / f".new-{name}").mkdir, parents=True)
        (root / f".new-{name}/disk.img").write_bytes(b"half")
    page = await reopen().list_volumes()
    assert [(v.id, v.context["state"]) for v in page.volumes] == [
        ("pvc-1", "incomplete"),
        ("pvc-2", "incomplete"),
    ]
    with pytest.raises(errors.NotFound):
        await reopen().get_volume("pvc-1")
    volume = await reopen().create_volume(VolumeRequest("pvc-1", 8 * MIB))
    assert (root / "pvc-1/disk.img").stat().st_size == volume.size
    await reopen().delete_volume("pvc-2")
    assert entries(root) == ["pvc-1"]


async def test_data_without_a_record_is_never_overwritten(reopen: Open, root: Path) -> None:
    (root / "pvc-1/data").mkdir(parents=True)
    (root / "pvc-1/data/file").write_text("kept")
    with pytest.raises(errors.Conflict, match="without a record"):
        await reopen().create_volume(VolumeRequest("pvc-1", MIB, DIRECTORY))
    assert (root / "pvc-1/data/file").read_text() == "kept"
    assert entries(root) == ["pvc-1"]


async def test_a_damaged_record_is_said_to_be_damaged(reopen: Open, root: Path) -> None:
    await reopen().create_volume(VolumeRequest("pvc-1", MIB, DIRECTORY))
    (root / "pvc-1/volume.json").write_text("{")
    with pytest.raises(errors.Conflict, match="record is damaged"):
        await reopen().get_volume("pvc-1")


async def test_a_volume_moved_away_by_hand_is_gone(reopen: Open, root: Path) -> None:
    backend = reopen()
    await backend.create_volume(VolumeRequest("pvc-1", MIB, DIRECTORY))
    (root / "pvc-1").rename(root.parent / "elsewhere")
    with pytest.raises(errors.NotFound):
        await backend.get_volume("pvc-1")


async def test_a_class_may_keep_its_volumes_elsewhere(
    reopen: Open, root: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other/disk"
    await reopen().create_volume(VolumeRequest("pvc-1", MIB, {**DIRECTORY, "path": str(other)}))
    assert (other / "pvc-1/data").is_dir()
    found = await reopen().get_volume("pvc-1")
    assert found.context["path"] == str(other / "pvc-1/data")
    assert [v.id for v in (await reopen().list_volumes()).volumes] == ["pvc-1"]
    await reopen().delete_volume("pvc-1")
    assert entries(other) == []


async def test_listing_goes_page_by_page(reopen: Open) -> None:
    backend = reopen()
    names = [f"pvc-{n}" for n in range(5)]
    for name in names:
        await backend.create_volume(VolumeRequest(name, MIB, DIRECTORY))
    seen: list[str] = []
    token = ""
    while True:
        page = await backend.list_volumes(token, 2)
        assert len(page.volumes) <= 2
        seen += [volume.id for volume in page.volumes]
        token = page.next_token
        if not token:
            break
    assert seen == names


async def test_expanding_never_shrinks(reopen: Open, root: Path) -> None:
    backend = reopen()
    await backend.create_volume(VolumeRequest("pvc-1", 8 * MIB))
    assert (await backend.expand("pvc-1", 16 * MIB - 1)).size == 16 * MIB
    assert (await backend.expand("pvc-1", 8 * MIB)).size == 16 * MIB
    assert (root / "pvc-1/disk.img").stat().st_size == 16 * MIB
    with pytest.raises(errors.NotFound):
        await backend.expand("pvc-2", MIB)


async def test_a_snapshot_keeps_the_content_of_its_moment(reopen: Open, root: Path) -> None:
    backend = reopen()
    await backend.create_volume(VolumeRequest("pvc-1", MIB, DIRECTORY))
    data = root / "pvc-1/data"
    (data / "file").write_text("before")
    os.link(data / "file", data / "hard")
    (data / "soft").symlink_to("file")
    (data / "file").chmod(0o640)
    snapshot = await backend.create_snapshot("snap-1", "pvc-1")
    (data / "file").write_text("after")
    assert await reopen().create_snapshot("snap-1", "pvc-1") == snapshot
    await backend.delete_volume("pvc-1")
    restore = VolumeRequest("pvc-2", MIB, DIRECTORY, source=VolumeSource("snapshot", "snap-1"))
    await backend.create_volume(restore)
    copy = root / "pvc-2/data"
    assert (copy / "file").read_text() == "before"
    assert (copy / "file").stat().st_mode & 0o777 == 0o640
    assert (copy / "hard").stat().st_ino == (copy / "file").stat().st_ino
    assert (copy / "soft").readlink() == Path("file")
    assert copy.stat().st_mode & 0o777 == 0o777
    assert (await backend.list_snapshots()).snapshots == [snapshot]
    await backend.delete_snapshot("snap-1")
    await backend.delete_snapshot("snap-1")
    with pytest.raises(errors.NotFound):
        await backend.get_snapshot("snap-1")
    assert (copy / "file").read_text() == "before"


async def test_a_cloned_image_keeps_data_and_holes_and_may_be_larger(
    reopen: Open, root: Path
) -> None:
    backend = reopen()
    await backend.create_volume(VolumeRequest("pvc-1", 64 * MIB))
    with (root / "pvc-1/disk.img").open("r+b") as image:
        image.seek(40 * MIB)
        image.write(b"data")
    clone = VolumeRequest("pvc-2", 128 * MIB, source=VolumeSource("volume", "pvc-1"))
    await backend.create_volume(clone)
    with (root / "pvc-2/disk.img").open("rb") as image:
        image.seek(40 * MIB)
        assert image.read(4) == b"data"
    found = (root / "pvc-2/disk.img").stat()
    assert found.st_size == 128 * MIB
    assert found.st_blocks * 512 < MIB


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (VolumeRequest("b", 4 * MIB, source=VolumeSource("volume", "a")), "ask for at least 8Mi"),
        (VolumeRequest("b", GIB, DIRECTORY, source=VolumeSource("volume", "a")), "layout image"),
        (VolumeRequest("b", GIB, {"fsType": "xfs"}, source=VolumeSource("volume", "a")), "ext4"),
        (VolumeRequest("a", 8 * MIB, source=VolumeSource("volume", "a")), "from itself"),
    ],
)
async def test_a_source_that_does_not_fit_the_request_is_refused(
    reopen: Open, request_: VolumeRequest, message: str
) -> None:
    backend = reopen()
    await backend.create_volume(VolumeRequest("a", 8 * MIB))
    with pytest.raises(errors.Invalid, match=message):
        await backend.create_volume(request_)


@pytest.mark.parametrize("kind", ["volume", "snapshot"])
async def test_a_missing_source_is_named(reopen: Open, kind: str) -> None:
    source = VolumeSource(kind, "gone")  # type: ignore[arg-type]
    with pytest.raises(errors.NotFound, match=f'no {kind} "gone"'):
        await reopen().create_volume(VolumeRequest("b", MIB, DIRECTORY, source=source))


async def test_concurrent_equal_requests_make_one_volume(reopen: Open, root: Path) -> None:
    backend = reopen()
    request = VolumeRequest("pvc-1", MIB, DIRECTORY)
    made = await asyncio.gather(*(backend.create_volume(request) for _ in range(16)))
    assert len({volume.context["path"] for volume in made}) == 1
    assert entries(root) == ["pvc-1"]


async def test_a_root_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    backend = LocalBackend(file / "volumes", "n")
    with pytest.raises(errors.Unavailable, match=r"file/volumes: cannot make the directory"):
        await backend.create_volume(VolumeRequest("pvc-1", MIB, DIRECTORY))
    await backend.close()


_WORKER = """
import asyncio, sys
from pathlib import Path
from holdfast.backends.local.backend import LocalBackend
from holdfast.backends.protocol import VolumeRequest

async def main():
    backend = LocalBackend(Path(sys.argv[1]), "n", loop_refusal=lambda: "")
    layouts = ({"layout": "directory"}, {"layout": "image"})
    for n in range(10_000):
        parameters = layouts[n % 2]
        await asyncio.gather(*(
            backend.create_volume(VolumeRequest(f"pvc-{n}-{m}", 1 << 21, parameters))
            for m in range(4)))
        print(n, flush=True)
        if n % 3 == 0:
            await backend.delete_volume(f"pvc-{n}-0")
asyncio.run(main())
"""


async def test_kill_9_leaves_nothing_that_looks_whole_but_is_not(reopen: Open, root: Path) -> None:
    chance = random.Random(7)
    for _ in range(4):
        worker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _WORKER, str(root)), stdout=asyncio.subprocess.PIPE
        )
        assert worker.stdout is not None
        await worker.stdout.readline()
        await asyncio.sleep(chance.uniform(0.01, 0.1))
        worker.send_signal(signal.SIGKILL)
        await worker.communicate()
    backend = reopen()
    volumes = (await backend.list_volumes()).volumes
    whole = [volume for volume in volumes if not volume.context.get("state")]
    assert whole
    contents = [str(root / name / part) for name in entries(root) for part in entries(root / name)]
    for volume in whole:
        assert volume.context["path"] in contents
        parameters = {"layout": volume.context["layout"]}
        again = await backend.create_volume(VolumeRequest(volume.id, 1 << 21, parameters))
        assert again == volume
    for entry in entries(root):
        await backend.delete_volume(entry.removeprefix(".new-").removeprefix(".deleted-"))
    assert entries(root) == []
