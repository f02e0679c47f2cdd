"""Setting pods' volumes up and taking them down without the right to mount.

Links stand in for mounts here, so that the order of events, the sharing of volumes and
recovery from what is on disk are tested by everyone; real mounts have tests of their own.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.backends.local import legacy
from holdfast.backends.local.node_side import LocalNodeSide
from holdfast.controllers.nodeagent import content, mounting, resolving

PLUGIN = "kubernetes.io~local-volume"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "node"


def volumes(root: Path) -> mounting.PodVolumes:
    return mounting.PodVolumes(root, {"local": LocalNodeSide()}, mounting=False)


def shared(path: Path, entry: str = "data") -> resolving.BackendOrder:
    handle = legacy.handle_of({"local": {"path": str(path)}})
    assert handle is not None
    return resolving.BackendOrder(entry, PLUGIN, "pv1", "pv1", handle=handle)


def empty(entry: str = "tmp", *, memory: bool = False) -> resolving.EmptyDirOrder:
    plugin = "kubernetes.io~empty-dir"
    return resolving.EmptyDirOrder(entry, plugin, entry, entry, memory=memory)


async def test_a_volume_is_seen_in_the_pod_and_its_data_outlives_it(
    root: Path, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    pods = volumes(root)
    await pods.set_up("u1", shared(tmp_path / "data"))
    assert await pods.ready("u1") == {"data"}
    (pods.path("u1", "data") / "file").write_text("kept")
    await pods.tear_down("u1")
    assert (tmp_path / "data" / "file").read_text() == "kept"
    assert not (root / "pods" / "u1").exists() and not (root / "staging" / "pv1").exists()


async def test_a_shared_volume_stays_staged_until_its_last_pod_goes(
    root: Path, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    pods = volumes(root)
    for uid in ("u1", "u2"):
        await pods.set_up(uid, shared(tmp_path / "data"))
    await pods.tear_down("u1")
    assert (root / "staging" / "pv1").exists()
    assert await pods.ready("u2") == {"data"}
    await pods.tear_down("u2")
    assert not (root / "staging" / "pv1").exists()


async def test_a_new_process_knows_what_is_set_up(root: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    first = volumes(root)
    await first.set_up("u1", shared(tmp_path / "data"))
    await first.set_up("u1", empty())
    second = volumes(root)
    assert await second.load() == ["u1"]
    assert await second.ready("u1") == {"data", "tmp"}
    await second.tear_down("u1")
    assert (tmp_path / "data").is_dir() and not (root / "pods" / "u1").exists()


async def test_what_vanished_is_not_ready_and_is_made_again(root: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    pods = volumes(root)
    await pods.set_up("u1", shared(tmp_path / "data"))
    pods.path("u1", "data").unlink()
    assert await pods.ready("u1") == set()
    await pods.set_up("u1", shared(tmp_path / "data"))
    assert await pods.ready("u1") == {"data"}


async def test_what_failed_half_way_is_not_ready_and_can_be_taken_down(
    root: Path, tmp_path: Path
) -> None:
    pods = volumes(root)
    with pytest.raises(mounting.MountFailed, match="does not exist") as caught:
        await pods.set_up("u1", shared(tmp_path / "missing"))
    assert caught.value.title == "pv1"
    again = volumes(root)
    assert await again.load() == ["u1"]
    assert await again.ready("u1") == set()
    await again.tear_down("u1")
    assert not (root / "pods" / "u1").exists()


async def test_remains_of_an_interrupted_write_do_not_keep_the_pod(root: Path) -> None:
    directory = root / "pods" / "u1" / "volumes" / "kubernetes.io~empty-dir" / "tmp"
    directory.mkdir(parents=True)
    (directory / ".volume.json.abc").write_text("{")
    pods = volumes(root)
    assert await pods.load() == ["u1"]
    await pods.tear_down("u1")
    assert not (root / "pods" / "u1").exists()


async def test_what_nobody_knows_is_never_deleted(root: Path) -> None:
    directory = root / "pods" / "u1" / "volumes" / "strange" / "thing"
    directory.mkdir(parents=True)
    (directory / "precious").write_text("data")
    pods = volumes(root)
    await pods.load()
    with pytest.raises(mounting.MountFailed):
        await pods.tear_down("u1")
    assert (directory / "precious").read_text() == "data"


async def test_a_damaged_record_stops_neither_the_others_nor_deletes_anything(
    root: Path,
) -> None:
    pods = volumes(root)
    await pods.set_up("u1", empty())
    await pods.set_up("u2", empty())
    place = pods.path("u1", "tmp")
    (place / "file").write_text("x")
    (place.parent / "volume.json").write_text("{")
    again = volumes(root)
    assert await again.load() == ["u1", "u2"]
    assert await again.ready("u2") == {"tmp"}
    with pytest.raises(mounting.MountFailed):
        await again.tear_down("u1")
    assert (place / "file").read_text() == "x"


async def test_an_empty_directory_is_writable_by_all_and_goes_with_its_pod(
    root: Path, tmp_path: Path
) -> None:
    pods = volumes(root)
    await pods.set_up("u1", empty(memory=True))
    place = pods.path("u1", "tmp")
    assert place.stat().st_mode & 0o777 == 0o777
    (place / "file").write_text("x")
    (tmp_path / "outside").mkdir()
    (place / "link").symlink_to(tmp_path / "outside")
    await pods.set_up("u1", empty(memory=True))
    assert (place / "file").read_text() == "x"
    await pods.tear_down("u1")
    assert not place.exists() and (tmp_path / "outside").is_dir()


async def test_files_from_objects_appear_in_the_pod(root: Path) -> None:
    files = {"a": content.File(b"one", 0o600)}
    plugin = "kubernetes.io~secret"
    order = resolving.ContentOrder("s", plugin, "s", "s", files=files, secret=True)
    pods = volumes(root)
    await pods.set_up("u1", order)
    assert (pods.path("u1", "s") / "a").read_bytes() == b"one"


async def test_two_entries_with_one_volume_have_two_places(root: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    pods = volumes(root)
    await pods.set_up("u1", shared(tmp_path / "data", "a"))
    await pods.set_up("u1", shared(tmp_path / "data", "b"))
    assert await pods.ready("u1") == {"a", "b"}
    assert pods.path("u1", "a") != pods.path("u1", "b")
    await pods.tear_down("u1")
    assert not (root / "staging" / "pv1").exists()


async def test_a_pod_that_left_nothing_is_down_already(root: Path) -> None:
    await volumes(root).tear_down("never-seen")
