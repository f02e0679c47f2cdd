"""The table of kinds, and the data that describes their types."""

from __future__ import annotations

from collections import Counter

import pytest

from holdfast.api import kinds, shapes

EVERY_TYPE = sorted(shapes.names())


def test_names_follow_from_group_and_plural() -> None:
    assert kinds.CLAIM.api_version == "v1"
    assert kinds.CLAIM.bucket == "core/persistentvolumeclaims"
    assert kinds.CLAIM.resource == "persistentvolumeclaims"
    assert kinds.CLAIM.singular == "persistentvolumeclaim"
    assert kinds.STORAGE_CLASS.api_version == "storage.k8s.io/v1"
    assert kinds.STORAGE_CLASS.bucket == "storage.k8s.io/storageclasses"
    assert kinds.STORAGE_CLASS.resource == "storageclasses.storage.k8s.io"


def test_a_kind_is_found_by_its_path_and_by_its_name() -> None:
    for kind in kinds.SERVED:
        assert kinds.find(kind.group, kind.version, kind.plural) is kind
        assert kinds.by_name(kind.api_version, kind.name) is kind


def test_what_is_not_served_is_not_found() -> None:
    assert kinds.find("", "v1", "storageclasses") is None
    assert kinds.find("storage.k8s.io", "v1beta1", "storageclasses") is None
    assert kinds.by_name("v1", "StorageClass") is None


def test_reviews_are_asked_and_not_stored() -> None:
    assert not set(kinds.REVIEWS) & set(kinds.ALL)
    assert {kind.verbs for kind in kinds.REVIEWS} == {("create",)}


def test_short_names_and_buckets_are_unique() -> None:
    short = Counter(name for kind in kinds.ALL for name in kind.short_names)
    assert [name for name, count in short.items() if count > 1] == []
    assert len({kind.bucket for kind in kinds.ALL}) == len(kinds.ALL)


def test_cluster_wide_kinds_are_these() -> None:
    assert {kind.name for kind in kinds.ALL if not kind.namespaced} == {
        "Namespace",
        "Node",
        "PersistentVolume",
        "StorageClass",
        "VolumeAttachment",
        "CSIDriver",
        "CSINode",
        "VolumeSnapshotClass",
        "VolumeSnapshotContent",
    }


def test_all_namespaces_cannot_be_deleted_in_one_request() -> None:
    assert "deletecollection" not in kinds.NAMESPACE.verbs
    assert "deletecollection" in kinds.CLAIM.verbs


@pytest.mark.parametrize("kind", kinds.ALL, ids=lambda kind: kind.name)
def test_every_kind_has_a_shape_with_a_list(kind: kinds.Kind) -> None:
    assert kind.shape is shapes.of(kind.name)
    for field in ("apiVersion", "kind", "metadata"):
        assert field in kind.shape.fields
    assert kind.shape.fields["metadata"].type == "ObjectMeta"
    assert shapes.of(f"{kind.name}List").fields["items"].element is kind.shape


@pytest.mark.parametrize("kind", kinds.ALL, ids=lambda kind: kind.name)
def test_a_status_subresource_has_a_status_to_write(kind: kinds.Kind) -> None:
    has_status = "status" in kind.shape.fields
    assert ("status" in kind.subresources) == has_status


@pytest.mark.parametrize("kind", kinds.ALL, ids=lambda kind: kind.name)
def test_field_selectors_name_fields_that_exist(kind: kinds.Kind) -> None:
    for path in kind.field_selectors:
        shape: shapes.Shape | None = kind.shape
        for step in path.split("."):
            assert shape is not None and step in shape.fields, path
            shape = shape.fields[step].element


def test_every_field_has_a_type_that_exists() -> None:
    for name in EVERY_TYPE:
        for field in shapes.of(name).fields.values():
            if field.leaf not in shapes.SCALARS:
                assert shapes.of(field.leaf) is field.element


def test_protobuf_numbers_are_unique_within_a_message() -> None:
    for name in EVERY_TYPE:
        numbers = Counter(
            (field.inline, field.tag) for field in shapes.of(name).fields.values() if field.tag
        )
        assert [number for number, count in numbers.items() if count > 1] == []
        carriers = {field.inline for field in shapes.of(name).fields.values() if field.inline}
        assert not carriers & {tag for inline, tag in numbers if not inline}


def test_only_type_information_stays_out_of_protobuf() -> None:
    for name in EVERY_TYPE:
        untagged = {field.name for field in shapes.of(name).fields.values() if not field.tag}
        assert untagged <= {"apiVersion", "kind"}


def test_merge_keys_are_fields_of_the_elements() -> None:
    for name in EVERY_TYPE:
        for field in shapes.of(name).fields.values():
            if field.key or field.keys:
                assert field.element is not None, field.name
                assert {field.key or field.keys[0], *field.keys} <= field.element.fields.keys()
            assert (field.list == "map") == bool(field.keys), field.name


def test_constant_defaults_are_values_their_fields_accept() -> None:
    for name in EVERY_TYPE:
        shape = shapes.of(name)
        for field in shape.fields.values():
            if field.default is not None:
                decoded = shape.decode({field.name: field.default})
                assert decoded[field.name] == field.default
                chosen = field.default if field.is_list else [field.default]
                assert not field.enum or set(chosen) <= set(field.enum)


def test_the_data_states_what_is_known_of_access_modes() -> None:
    field = kinds.CLAIM.shape.fields["spec"].element
    assert field is not None
    modes = field.fields["accessModes"]
    assert (modes.type, modes.tag, modes.list) == ("[]string", 1, "atomic")
    assert modes.enum == ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
    assert modes.is_list and not modes.is_map and modes.element is None and modes.doc


def test_pod_volumes_merge_by_name_and_keep_one_source() -> None:
    volumes = shapes.of("PodSpec").fields["volumes"]
    assert (volumes.key, volumes.patch) == ("name", "merge,retainKeys")


def test_volume_sources_sit_in_a_protobuf_message_of_their_own() -> None:
    assert shapes.of("Volume").fields["nfs"].inline == 2
    assert shapes.of("PersistentVolumeSpec").fields["nfs"].inline == 2
    assert shapes.of("PersistentVolumeSpec").fields["capacity"].inline == 0


def test_a_claim_reference_is_owned_field_by_field_unlike_other_references() -> None:
    assert shapes.of("ObjectReference").atomic
    assert shapes.of("PersistentVolumeSpec").fields["claimRef"].atomic is False


@pytest.mark.parametrize("kind", kinds.SERVED, ids=lambda kind: kind.name)
def test_every_field_is_explained(kind: kinds.Kind) -> None:
    todo, seen = [kind.name], set[str]()
    while todo:
        shape = shapes.of(todo.pop())
        seen.add(shape.name)
        assert shape.doc, shape.name
        for field in shape.fields.values():
            assert field.doc.endswith("."), f"{shape.name}.{field.name}"
            if field.element is not None and field.leaf not in seen:
                todo.append(field.leaf)
