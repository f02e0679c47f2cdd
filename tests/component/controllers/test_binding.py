"""Claims and volumes find each other: matching, the writes of a bind, pre-binding, Lost.

The controllers run against the real API server; a test asks for objects, and looks at what
became of them. Nothing here provisions.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.api import kinds, views
from holdfast.testing.controlplane import ControlPlane, control_plane, phase_of
from holdfast.testing.objects import ROX, RWO, RWX, claim, reference, volume

Object = dict[str, Any]
COMPONENT = "persistentvolume-controller"
LAZY: Object = {"volumeBindingMode": "WaitForFirstConsumer"}


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    async with control_plane(tmp_path) as running:
        yield running


def annotated(name: str) -> dict[str, str]:
    return {views.BETA_CLASS: name}


def labelled(**labels: str) -> Object:
    return {"matchLabels": labels}


def expressed(key: str, operator: str, *values: str) -> Object:
    expression: Object = {"key": key, "operator": operator}
    if values:
        expression["values"] = list(values)
    return {"matchExpressions": [expression]}


MATCHES: list[Any] = [
    pytest.param([volume("a")], claim("c"), "a", id="a_volume_of_just_the_size"),
    pytest.param(
        [volume("a", "9Gi"), volume("b", "3Gi"), volume("c", "5Gi")],
        claim("c", "2Gi"),
        "b",
        id="the_smallest_that_is_large_enough",
    ),
    pytest.param([volume("a", "1G")], claim("c", "1Gi"), "", id="1G_is_less_than_1Gi"),
    pytest.param(
        [volume("a", "950E"), volume("b", "800E")],
        claim("c", "10E"),
        "b",
        id="sizes_beyond_64_bits_are_compared_exactly",
    ),
    pytest.param(
        [volume("a", "1Gi", [RWO, ROX]), volume("b", "100Gi", [RWO])],
        claim("c"),
        "b",
        id="fewer_modes_come_before_a_smaller_size",
    ),
    pytest.param(
        [volume("a", modes=[RWO]), volume("b", modes=[RWO, RWX, ROX])],
        claim("c", modes=[RWX, ROX]),
        "b",
        id="all_requested_modes_are_needed",
    ),
    pytest.param([volume("a", modes=[ROX])], claim("c"), "", id="no_volume_of_the_wrong_mode"),
    pytest.param(
        [volume("a", labels={"t": "x"}), volume("b", labels={"t": "y"}), volume("d")],
        claim("c", selector=labelled(t="y")),
        "b",
        id="labels_select",
    ),
    pytest.param(
        [volume("a", labels={"t": "x"}), volume("b", "7Gi", labels={"t": "z"})],
        claim("c", selector=expressed("t", "In", "y", "z")),
        "b",
        id="an_expression_lists_values",
    ),
    pytest.param(
        [volume("a", labels={"t": "x"}), volume("b")],
        claim("c", selector=expressed("t", "NotIn", "x")),
        "b",
        id="not_in_accepts_a_volume_without_the_label",
    ),
    pytest.param(
        [volume("a"), volume("b", "7Gi", labels={"t": ""})],
        claim("c", selector=expressed("t", "Exists")),
        "b",
        id="exists_accepts_any_value",
    ),
    pytest.param(
        [volume("a", labels={"t": "x"})],
        claim("c", selector={**labelled(t="x"), **expressed("u", "Exists")}),
        "",
        id="labels_and_expressions_must_both_hold",
    ),
    pytest.param(
        [volume("a"), volume("b", "7Gi", storageClassName="s")],
        claim("c", storageClassName="s"),
        "b",
        id="the_class_must_be_the_same",
    ),
    pytest.param(
        [volume("a", storageClassName="s"), volume("b", "7Gi")],
        claim("c", storageClassName=""),
        "b",
        id="the_empty_class_takes_a_volume_without_class",
    ),
    pytest.param(
        [volume("a", storageClassName="new"), volume("b", annotations=annotated("old"))],
        claim("c", storageClassName="old"),
        "b",
        id="a_volumes_class_by_annotation",
    ),
    pytest.param(
        [volume("a", annotations=annotated("old"), storageClassName="new")],
        claim("c", annotations=annotated("old")),
        "a",
        id="the_annotation_wins_over_the_field_on_both_sides",
    ),
    pytest.param(
        [volume("a"), volume("b", "7Gi", volumeMode="Block")],
        claim("c", volumeMode="Block"),
        "b",
        id="raw_blocks_only_from_a_block_volume",
    ),
    pytest.param(
        [volume("a"), volume("b", "90Gi", claimRef=reference("c"))],
        claim("c"),
        "b",
        id="a_volume_reserved_by_name_before_a_smaller_one",
    ),
    pytest.param(
        [volume("a", claimRef=reference("c"), storageClassName="other", labels={"t": "x"})],
        claim("c", selector=labelled(t="y")),
        "a",
        id="reservation_overrules_class_and_selector",
    ),
    pytest.param(
        [volume("a", claimRef=reference("c"))], claim("c", "2Gi"), "", id="reserved_but_too_small"
    ),
    pytest.param(
        [volume("a", claimRef=reference("c"), volumeMode="Block")],
        claim("c"),
        "",
        id="reserved_but_of_the_other_volume_mode",
    ),
    pytest.param(
        [volume("a", claimRef=reference("d"))], claim("c"), "", id="reserved_for_another_claim"
    ),
    pytest.param(
        [volume("a", claimRef=reference("c", namespace="kube-system"))],
        claim("c"),
        "",
        id="reserved_for_a_claim_of_another_namespace",
    ),
    pytest.param(
        [volume("a", claimRef=reference("c"), modes=[RWO, ROX]), volume("b", "50Gi")],
        claim("c"),
        "b",
        id="a_reserved_volume_with_more_modes_comes_after_a_free_one_with_fewer",
    ),
    pytest.param(
        [
            volume(
                "a",
                nodeAffinity={
                    "required": {
                        "nodeSelectorTerms": [
                            {
                                "matchExpressions": [
                                    {"key": "no/where", "operator": "In", "values": ["x"]}
                                ]
                            }
                        ]
                    }
                },
            )
        ],
        claim("c"),
        "a",
        id="node_affinity_is_not_the_binders_business",
    ),
]


@pytest.mark.parametrize(("volumes", "wanted", "expected"), MATCHES)
async def test_a_claim_gets(
    control: ControlPlane, volumes: list[Object], wanted: Object, expected: str
) -> None:
    for each in volumes:
        await control.create(each)
    await control.settled()
    await control.create(wanted)
    if not expected:
        await control.settled()
        found = await control.find(kinds.CLAIM, "c")
        assert found is not None
        assert phase_of(found) == "Pending"
        assert "volumeName" not in found["spec"]
        return
    found = await control.phase(kinds.CLAIM, "c", "Bound")
    assert found["spec"]["volumeName"] == expected
    bound = await control.phase(kinds.VOLUME, expected, "Bound")
    assert bound["spec"]["claimRef"]["uid"] == found["metadata"]["uid"]


async def test_an_observer_sees_the_four_writes_of_a_bind_in_order(tmp_path: Path) -> None:
    async with control_plane(tmp_path, http=True) as control:
        await _check_four_writes(control)


async def _check_four_writes(control: ControlPlane) -> None:
    assert control.http is not None
    await control.create(volume("v", "2Gi", [RWO, ROX]))
    await control.phase(kinds.VOLUME, "v", "Available")
    revision = (await control.client.list(kinds.VOLUME)).revision
    await control.create(claim("c"))
    await control.phase(kinds.CLAIM, "c", "Bound")
    await control.settled()

    seen: list[tuple[int, str]] = []
    for kind in (kinds.VOLUME, kinds.CLAIM):
        watch = control.http.watch(kind, revision=revision)
        last = (await control.client.list(kind)).items[0]["metadata"]["resourceVersion"]
        async for _type, obj in watch:
            number = int(obj["metadata"]["resourceVersion"])
            seen.append((number, _state(obj)))
            if str(number) == last:
                break

    assert [state for _, state in sorted(seen)] == [
        "claim Pending, volume none",
        "volume Available, claimed",
        "volume Bound, claimed",
        "claim Pending, volume v",
        "claim Bound, volume v",
    ]


def _state(obj: Object) -> str:
    if obj["kind"] == "PersistentVolume":
        claimed = "claimed" if "claimRef" in obj["spec"] else "free"
        return f"volume {phase_of(obj)}, {claimed}"
    return f"claim {phase_of(obj)}, volume {obj['spec'].get('volumeName', 'none')}"


async def test_a_bound_pair_carries_full_references_and_the_volumes_real_size(
    control: ControlPlane,
) -> None:
    await control.create(volume("v", "2Gi", [RWO, ROX]))
    made = await control.create(claim("c"))
    found = await control.phase(kinds.CLAIM, "c", "Bound")
    bound = await control.phase(kinds.VOLUME, "v", "Bound")

    assert found["status"]["capacity"] == {"storage": "2Gi"}
    assert found["status"]["accessModes"] == [RWO, ROX]
    wanted = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "namespace": "default",
        "name": "c",
        "uid": made["metadata"]["uid"],
    }
    assert wanted.items() <= bound["spec"]["claimRef"].items()
    assert bound["spec"]["claimRef"]["resourceVersion"]
    assert found["metadata"]["annotations"][views.BIND_COMPLETED] == "yes"


@pytest.mark.parametrize(
    ("the_volume", "the_claim", "by_volume", "by_claim"),
    [
        pytest.param(volume("v"), claim("c"), True, True, id="nobody"),
        pytest.param(volume("v"), claim("c", volumeName="v"), True, False, id="the_claims_author"),
        pytest.param(
            volume("v", claimRef=reference("c")), claim("c"), False, True, id="the_volumes_author"
        ),
        pytest.param(
            volume("v", claimRef=reference("c")),
            claim("c", volumeName="v"),
            False,
            False,
            id="both_authors",
        ),
    ],
)
async def test_the_side_its_author_bound_lacks_the_controllers_mark(
    control: ControlPlane, the_volume: Object, the_claim: Object, by_volume: bool, by_claim: bool
) -> None:
    await control.create(the_volume)
    await control.create(the_claim)
    found = await control.phase(kinds.CLAIM, "c", "Bound")
    bound = await control.phase(kinds.VOLUME, "v", "Bound")

    marks = [
        views.BOUND_BY_CONTROLLER in (obj["metadata"].get("annotations") or {})
        for obj in (bound, found)
    ]
    assert marks == [by_volume, by_claim]
    assert bound["spec"]["claimRef"]["uid"] == found["metadata"]["uid"]
