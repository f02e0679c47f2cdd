"""Reviews over the wire: who am I, what may I do, what may somebody else do."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.testing.apiserver import NODE_TOKEN, TOKEN, VIEW_TOKEN
from wire import Object, Wire

AUTHENTICATION = "/apis/authentication.k8s.io/v1"
AUTHORIZATION = "/apis/authorization.k8s.io/v1"
SELF = f"{AUTHENTICATION}/selfsubjectreviews"
TOKENS = f"{AUTHENTICATION}/tokenreviews"
ACCESS = f"{AUTHORIZATION}/subjectaccessreviews"
SELF_ACCESS = f"{AUTHORIZATION}/selfsubjectaccessreviews"
SELF_RULES = f"{AUTHORIZATION}/selfsubjectrulesreviews"
LOCAL_ACCESS = f"{AUTHORIZATION}/namespaces/default/localsubjectaccessreviews"


def _pods(verb: str, **rest: Any) -> Object:
    return {"resourceAttributes": {"verb": verb, "resource": "pods", **rest}}


async def _ask(api: Wire, path: str, spec: Object | None = None, token: str = TOKEN) -> Any:
    reply = await api.call("POST", path, {} if spec is None else {"spec": spec}, token=token)
    assert reply.code == 201, reply.content
    return reply.body


async def test_whoever_asks_is_told_who_it_is(api: Wire) -> None:
    review = await _ask(api, SELF, token=VIEW_TOKEN)
    assert (review["kind"], review["apiVersion"]) == (
        "SelfSubjectReview",
        "authentication.k8s.io/v1",
    )
    assert review["metadata"]["creationTimestamp"]
    assert review["status"]["userInfo"] == {
        "username": "holdfast:view",
        "uid": "holdfast:view",
        "groups": ["holdfast:readers", "system:authenticated"],
    }
    assert (await api.call("POST", SELF, {}, token=None)).code == 403


@pytest.mark.parametrize(
    ("token", "spec", "allowed"),
    [
        (TOKEN, _pods("create"), True),
        (VIEW_TOKEN, _pods("create"), False),
        (VIEW_TOKEN, _pods("list", namespace="default"), True),
        (VIEW_TOKEN, _pods("get", subresource="log"), True),
        (VIEW_TOKEN, _pods("create", subresource="exec"), False),
        (VIEW_TOKEN, {"nonResourceAttributes": {"verb": "get", "path": "/apis/apps"}}, True),
        (VIEW_TOKEN, {"nonResourceAttributes": {"verb": "post", "path": "/apis"}}, False),
        (NODE_TOKEN, _pods("list"), False),
        (
            NODE_TOKEN,
            _pods("list", fieldSelector={"rawSelector": "spec.nodeName=node-1"}),
            True,
        ),
        (
            NODE_TOKEN,
            _pods(
                "list",
                fieldSelector={
                    "requirements": [
                        {"key": "spec.nodeName", "operator": "In", "values": ["node-2"]}
                    ]
                },
            ),
            False,
        ),
    ],
)
async def test_a_user_is_told_what_it_may_do(
    api: Wire, token: str, spec: Object, allowed: bool
) -> None:
    review = await _ask(api, SELF_ACCESS, spec, token)
    assert review["status"]["allowed"] is allowed
    assert review["spec"] == spec


async def test_a_refusal_says_why_where_there_is_something_to_say(api: Wire) -> None:
    secret = {"resourceAttributes": {"verb": "get", "resource": "secrets", "namespace": "n"}}
    status = (await _ask(api, SELF_ACCESS, secret, NODE_TOKEN))["status"]
    assert status == {"allowed": False, "reason": "No Object name found"}


async def test_the_administrator_asks_for_somebody_else(api: Wire) -> None:
    asked = {"user": "x", "groups": ["holdfast:readers"], **_pods("list")}
    assert (await _ask(api, ACCESS, asked))["status"] == {"allowed": True}
    nobody = {"user": "x", "extra": {"scopes": ["a", "b"]}, **_pods("list")}
    review = await _ask(api, ACCESS, nobody)
    assert review["status"] == {"allowed": False}
    assert review["spec"]["extra"] == {"scopes": ["a", "b"]}
    reply = await api.call("POST", ACCESS, {"spec": asked}, token=VIEW_TOKEN)
    assert reply.message == (
        'subjectaccessreviews.authorization.k8s.io is forbidden: User "holdfast:view" cannot '
        'create resource "subjectaccessreviews" in API group "authorization.k8s.io" at the '
        "cluster scope"
    )


async def test_a_local_review_stays_in_its_namespace(api: Wire) -> None:
    spec = {"user": "x", "groups": ["system:masters"], **_pods("get", namespace="default")}
    review = await _ask(api, LOCAL_ACCESS, spec)
    assert review["status"] == {"allowed": True}
    assert review["metadata"]["namespace"] == "default"
    elsewhere = {"spec": {"user": "x", **_pods("get", namespace="other")}}
    reply = await api.call("POST", LOCAL_ACCESS, elsewhere)
    assert (reply.code, reply.causes) == (
        422,
        [
            (
                "spec.resourceAttributes.namespace",
                "FieldValueInvalid",
                'Invalid value: "other": must match metadata.namespace',
            )
        ],
    )


async def test_a_question_has_to_be_complete(api: Wire) -> None:
    reply = await api.call("POST", ACCESS, {"spec": {}})
    assert (reply.code, reply.reason) == (422, "Invalid")
    assert [(field, text.partition(": ")[2]) for field, _, text in reply.causes] == [
        (
            "spec.resourceAttributes",
            '"null": exactly one of nonResourceAttributes or resourceAttributes must be specified',
        ),
        ("spec.user", '"": at least one of user or group must be specified'),
    ]
    named = {"metadata": {"name": "n"}, "spec": _pods("get")}
    assert (await api.call("POST", SELF_ACCESS, named)).code == 422
    assert (await api.call("POST", SELF_RULES, {"spec": {}})).message == "no namespace on request"
    strict = await api.call(
        "POST", SELF_ACCESS, {"spec": _pods("get", colour="red")}, fieldValidation="Strict"
    )
    assert (strict.code, 'unknown field "spec.resourceAttributes.colour"' in strict.message) == (
        400,
        True,
    )


async def test_the_rules_of_a_user_are_listed(api: Wire) -> None:
    admin = (await _ask(api, SELF_RULES, {"namespace": "default"}))["status"]
    everything = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
    assert everything in admin["resourceRules"]
    assert {"verbs": ["*"], "nonResourceURLs": ["*"]} in admin["nonResourceRules"]
    assert admin["incomplete"] is False
    reader = (await _ask(api, SELF_RULES, {"namespace": "default"}, VIEW_TOKEN))["status"]
    named = {name for rule in reader["resourceRules"] for name in rule["resources"]}
    assert {"pods", "pods/log", "statefulsets", "storageclasses"} <= named
    assert not {"secrets", "pods/exec", "*"} & named
    node = (await _ask(api, SELF_RULES, {"namespace": "default"}, NODE_TOKEN))["status"]
    assert node["incomplete"] is True
    assert node["evaluationError"] == "node authorizer does not support user rule resolution"


async def test_a_token_is_looked_up(api: Wire) -> None:
    known = (await _ask(api, TOKENS, {"token": NODE_TOKEN}))["status"]
    assert known["authenticated"] is True
    assert known["user"]["username"] == "system:node:node-1"
    assert known["user"]["groups"] == ["system:nodes", "system:authenticated"]
    unknown = (await _ask(api, TOKENS, {"token": "nobody's"}))["status"]
    assert unknown == {"user": {}, "error": "invalid bearer token"}
    assert (await api.call("POST", TOKENS, {"spec": {}})).code == 400
    here = "https://kubernetes.default.svc"
    meant = (await _ask(api, TOKENS, {"token": TOKEN, "audiences": ["x", here]}))["status"]
    assert (meant["authenticated"], meant["audiences"]) == (True, [here])
    elsewhere = (await _ask(api, TOKENS, {"token": TOKEN, "audiences": ["x"]}))["status"]
    assert elsewhere == {"user": {}}


async def test_reviews_are_only_created(api: Wire) -> None:
    assert (await api.call("GET", SELF_ACCESS)).code == 405
    assert (await api.call("DELETE", SELF_ACCESS)).code == 405
    assert (await api.call("POST", f"{SELF_ACCESS}/x", {})).code == 404
    revision = api.server.store.revision
    await _ask(api, SELF_ACCESS, _pods("get"))
    assert api.server.store.revision == revision
