"""Files from config maps, secrets and the pod: tables, and what gets written."""

from __future__ import annotations

import base64
import stat
from pathlib import Path
from typing import Any, cast

import pytest

from holdfast.api import errors, kinds, views
from holdfast.controllers.nodeagent import content
from holdfast.runtime.client import Client

POD: dict[str, Any] = {
    "metadata": {
        "name": "p",
        "namespace": "ns",
        "uid": "u",
        "labels": {"b": "2", "a": 'quo"ted'},
        "annotations": {"note": "hello"},
    }
}


class Objects:
    """Answers reads from a table, as a server with exactly these objects would."""

    def __init__(self, **objects: dict[str, Any]) -> None:
        self._objects = objects

    async def get(self, kind: kinds.Kind, name: str, namespace: str | None = None) -> Any:
        if name not in self._objects or namespace != "ns":
            raise errors.NotFound.of(kind.group, kind.plural, name)
        return self._objects[name]


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


async def table(entry: dict[str, Any], **objects: dict[str, Any]) -> content.Table | None:
    (parsed,) = views.pod(
        {"metadata": {"name": "p"}, "spec": {"volumes": [{"name": "v", **entry}]}}
    ).spec.volumes
    return await content.of_entry(cast(Client, Objects(**objects)), POD, parsed)


async def test_a_config_map_gives_one_file_per_key() -> None:
    obj = {"data": {"a": "one"}, "binaryData": {"b": encoded("two")}}
    files = await table({"configMap": {"name": "cm", "defaultMode": 0o640}}, cm=obj)
    assert files == {"a": content.File(b"one", 0o640), "b": content.File(b"two", 0o640)}


async def test_items_choose_keys_paths_and_modes() -> None:
    items = [{"key": "a", "path": "deep/er/file", "mode": 0o400}]
    files = await table({"configMap": {"name": "cm", "items": items}}, cm={"data": {"a": "x"}})
    assert files == {"deep/er/file": content.File(b"x", 0o400)}


async def test_a_secret_is_decoded_and_never_shown() -> None:
    files = await table({"secret": {"secretName": "s"}}, s={"data": {"k": encoded("hidden")}})
    assert files is not None and files["k"].data == b"hidden"
    assert "hidden" not in repr(files)


async def test_a_missing_object_is_an_error_unless_it_is_optional() -> None:
    with pytest.raises(content.ContentError, match=r'^configmap "cm" not found$'):
        await table({"configMap": {"name": "cm"}})
    with pytest.raises(content.ContentError, match=r'^secret "s" not found$'):
        await table({"secret": {"secretName": "s"}})
    assert await table({"configMap": {"name": "cm", "optional": True}}) == {}


async def test_a_missing_key_is_an_error_unless_it_is_optional() -> None:
    source = {"name": "cm", "items": [{"key": "nope", "path": "p"}]}
    with pytest.raises(content.ContentError, match="references non-existent config key: nope"):
        await table({"configMap": source}, cm={"data": {}})
    assert await table({"configMap": {**source, "optional": True}}, cm={"data": {}}) == {}


@pytest.mark.parametrize("path", ["../out", "/etc/passwd", "a/../../b", ""])
async def test_a_path_that_leaves_the_volume_is_refused(path: str) -> None:
    source = {"name": "cm", "items": [{"key": "k", "path": path}]}
    with pytest.raises(content.ContentError, match="leaves the volume"):
        await table({"configMap": source}, cm={"data": {"k": "x"}})


async def test_projected_sources_are_merged() -> None:
    labels = {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}
    sources = [
        {"configMap": {"name": "cm"}},
        {"secret": {"name": "s"}},
        {"downwardAPI": {"items": [labels]}},
    ]
    files = await table(
        {"projected": {"sources": sources, "defaultMode": 0o600}},
        cm={"data": {"a": "1"}},
        s={"data": {"b": encoded("2")}},
    )
    assert files is not None
    assert {name: file.data for name, file in files.items()} == {
        "a": b"1",
        "b": b"2",
        "labels": b'a="quo\\"ted"\nb="2"',
    }
    assert {file.mode for file in files.values()} == {0o600}


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ({"containerName": "main", "resource": "requests.memory"}, "1073741824"),
        ({"containerName": "main", "resource": "requests.memory", "divisor": "1Mi"}, "1024"),
        ({"containerName": "main", "resource": "limits.cpu"}, "2"),
        ({"containerName": "main", "resource": "limits.cpu", "divisor": "1m"}, "1500"),
        ({"containerName": "main", "resource": "limits.memory"}, "0"),
        ({"containerName": "other", "resource": "limits.cpu"}, None),
    ],
)
def test_amounts_of_containers_are_told_in_units_rounded_up(
    reference: dict[str, str], expected: str | None
) -> None:
    resources = {"requests": {"memory": "1Gi"}, "limits": {"cpu": "1500m"}}
    pod = {"spec": {"containers": [{"name": "main", "resources": resources}]}}
    assert content.container_amount(pod, reference) == expected


async def test_other_kinds_of_volume_have_no_content() -> None:
    assert await table({"emptyDir": {}}) is None


def test_single_fields_of_the_pod_can_be_read() -> None:
    assert content.pod_field(POD, "metadata.name") == "p"
    assert content.pod_field(POD, "metadata.annotations['note']") == "hello"
    assert content.pod_field(POD, "metadata.labels['none']") == ""
    assert content.pod_field(POD, "spec.secret") is None


def test_files_are_written_with_their_modes(tmp_path: Path) -> None:
    content.write({"a/b": content.File(b"x", 0o400)}, tmp_path, None)
    assert (tmp_path / "a/b").read_bytes() == b"x"
    assert stat.S_IMODE((tmp_path / "a/b").stat().st_mode) == 0o400


@pytest.mark.root
def test_with_a_group_the_files_belong_to_it_and_it_may_read_them(tmp_path: Path) -> None:
    content.write({"a/b": content.File(b"x", 0o400)}, tmp_path, 4711)
    assert (tmp_path / "a").stat().st_gid == 4711
    assert (tmp_path / "a/b").stat().st_gid == 4711
    assert stat.S_IMODE((tmp_path / "a/b").stat().st_mode) == 0o440
