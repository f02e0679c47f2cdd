"""Discovery: both forms say the same and say all that is served."""

from __future__ import annotations

import json
from typing import Any

import pytest

from holdfast.api import errors, kinds
from holdfast.apiserver import discovery, etags
from holdfast.apiserver.discovery import Form

_KUBECTL = (
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,"
    "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json"
)


def _load(answer: discovery.Answer | None) -> dict[str, Any]:
    assert answer is not None
    loaded: dict[str, Any] = json.loads(answer[1])
    return loaded


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (_KUBECTL, Form.V2),
        (_KUBECTL.partition(",")[2], Form.V2BETA1),
        ("application/json", Form.PLAIN),
        ("", Form.PLAIN),
        ("*/*", Form.PLAIN),
        ("application/vnd.kubernetes.protobuf,application/json", Form.PLAIN),
        ("application/json;q=0.5, " + _KUBECTL.partition(",")[0], Form.V2),
        ("application/json;g=apidiscovery.k8s.io;v=v9;as=APIGroupDiscoveryList,*/*", Form.PLAIN),
        ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", Form.PLAIN),
    ],
)
def test_the_form_follows_the_accept_header(accept: str, form: Form) -> None:
    assert discovery.negotiate(accept) is form


def test_a_client_that_takes_no_json_gets_not_acceptable() -> None:
    with pytest.raises(errors.NotAcceptable, match="application/json"):
        discovery.negotiate("text/html")


def test_the_content_type_repeats_what_was_negotiated() -> None:
    content_type, _ = discovery.apis(Form.V2)
    assert content_type == _KUBECTL.partition(",")[0]
    assert discovery.apis(Form.PLAIN)[0] == "application/json"


@pytest.mark.parametrize("form", [Form.V2, Form.V2BETA1])
def test_the_aggregated_form_has_every_kind_with_its_scope_and_names(form: Form) -> None:
    found = {}
    for answer in (discovery.api(form), discovery.apis(form)):
        listed = _load(answer)
        assert listed["kind"] == "APIGroupDiscoveryList"
        assert listed["apiVersion"] == f"apidiscovery.k8s.io/{form.value}"
        for group in listed["items"]:
            for version in group["versions"]:
                assert version["freshness"] == "Current"
                for entry in version["resources"]:
                    found[group["metadata"].get("name", ""), entry["resource"]] = entry
    assert set(found) == {(kind.group, kind.plural) for kind in kinds.SERVED}
    for kind in kinds.SERVED:
        entry = found[kind.group, kind.plural]
        assert entry["responseKind"] == {
            "group": kind.group,
            "version": kind.version,
            "kind": kind.name,
        }
        assert entry["scope"] == ("Namespaced" if kind.namespaced else "Cluster")
        assert entry["singularResource"] == kind.name.lower()
        assert tuple(entry.get("shortNames", ())) == kind.short_names
        assert tuple(entry["verbs"]) == kind.verbs


def test_the_plain_form_lists_the_same_resources_and_subresources() -> None:
    aggregated = {
        name
        for answer in (discovery.api(Form.V2), discovery.apis(Form.V2))
        for group in _load(answer)["items"]
        for version in group["versions"]
        for entry in version["resources"]
        for name in (
            entry["resource"],
            *(
                f"{entry['resource']}/{below['subresource']}"
                for below in entry.get("subresources", ())
            ),
        )
    }
    plain = {
        entry["name"]
        for group, version in {(kind.group, kind.version) for kind in kinds.SERVED}
        for entry in _load(discovery.resources(group, version))["resources"]
    }
    assert plain == aggregated
    assert {"pods/binding", "persistentvolumeclaims/status", "namespaces/finalize"} <= plain


def test_a_binding_is_created_and_a_status_is_not() -> None:
    entries = {entry["name"]: entry for entry in _load(discovery.resources("", "v1"))["resources"]}
    assert (entries["pods/binding"]["kind"], entries["pods/binding"]["verbs"]) == (
        "Binding",
        ["create"],
    )
    assert entries["pods/status"]["verbs"] == ["get", "patch", "update"]
    assert entries["pods"]["categories"] == ["all"]


def test_the_core_group_answers_with_its_versions() -> None:
    found = _load(discovery.api(Form.PLAIN))
    assert (found["kind"], found["versions"]) == ("APIVersions", ["v1"])


def test_a_group_is_described_like_in_the_list_of_groups() -> None:
    listed = _load(discovery.group_list())
    names = [group["name"] for group in listed["groups"]]
    assert names == list(dict.fromkeys(kind.group for kind in kinds.SERVED if kind.group))
    for group in listed["groups"]:
        alone = _load(discovery.group(group["name"]))
        assert (alone.pop("kind"), alone.pop("apiVersion")) == ("APIGroup", "v1")
        assert alone == group
        version = {"groupVersion": f"{group['name']}/v1", "version": "v1"}
        assert group["preferredVersion"] == version


def test_what_is_not_served_is_none() -> None:
    assert discovery.group("batch") is None
    assert discovery.group("") is None
    assert discovery.resources("storage.k8s.io", "v1beta1") is None


def test_the_version_is_one_that_clients_can_compare() -> None:
    found = _load(discovery.version())
    assert (found["major"], found["minor"]) == ("1", "32")
    assert found["gitVersion"] == "v1.32.13+holdfast"
    assert found["platform"].startswith("linux/")
    assert "go1." not in found["goVersion"]


def test_an_etag_is_quoted_and_follows_the_content() -> None:
    first, second = discovery.api(Form.V2)[1], discovery.api(Form.V2BETA1)[1]
    assert etags.of(first) == etags.of(bytes(bytearray(first)))
    assert etags.of(first) != etags.of(second)
    assert etags.matches(f'"other", W/{etags.of(first)}', first)
    assert not etags.matches(etags.of(second), first)
