"""What is read from a Secret, and the texts for one that cannot be used."""

from __future__ import annotations

import pytest

from holdfast.backends.secretrefs import SecretRef
from holdfast.controllers import secrets


def test_values_are_decoded() -> None:
    obj = {"type": "Opaque", "data": {"user": "YWRtaW4=", "empty": ""}}
    assert secrets.decode(SecretRef("ns", "s"), obj) == {"user": "admin", "empty": ""}


def test_a_wrong_type_names_both_types() -> None:
    ref = SecretRef("kube-system", "ceph-secret", "kubernetes.io/rbd")
    with pytest.raises(secrets.Unusable) as raised:
        secrets.decode(ref, {"type": "Opaque", "data": {}})
    assert str(raised.value) == (
        "secret kube-system/ceph-secret: its type is Opaque, kubernetes.io/rbd is needed; "
        "a type cannot be changed: delete it and create it with --type=kubernetes.io/rbd"
    )


@pytest.mark.parametrize("value", ["not base64!", "/w=="], ids=["alphabet", "not text"])
def test_a_value_that_is_no_text_is_named_by_its_key_alone(value: str) -> None:
    with pytest.raises(secrets.Unusable, match='the value of "key" is no text') as raised:
        secrets.decode(SecretRef("ns", "s"), {"data": {"key": value}})
    assert value not in str(raised.value)


def test_a_volume_remembers_its_secret() -> None:
    ref = SecretRef("ns", "s")
    assert secrets.deletion_ref(secrets.deletion_annotations(ref)) == ref
    assert secrets.deletion_annotations(None) == {}
    assert secrets.deletion_ref({secrets.DELETION_NAME: "s"}) is None
