"""What each user may do, and what Kubernetes' words are for what it may not."""

from __future__ import annotations

import pytest

from holdfast.api import kinds
from holdfast.testing.apiserver import NODE_TOKEN, VIEW_TOKEN
from wire import (
    CLAIMS,
    CLASSES,
    CONFIG_MAPS,
    CORE,
    NAMESPACES,
    PODS,
    VOLUMES,
    Object,
    Reply,
    Wire,
    claim,
    config_map,
    meta,
    pod,
    volume,
)

SECRETS = f"{CORE}/namespaces/default/secrets"
NODES = f"{CORE}/nodes"
EVENTS = f"{CORE}/namespaces/default/events"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
CSI_NODES = "/apis/storage.k8s.io/v1/csinodes"
ATTACHMENTS = "/apis/storage.k8s.io/v1/volumeattachments"
NODE_USER = "system:node:node-1"


def _refused(reply: Reply, message: str) -> None:
    assert (reply.code, reply.reason, reply.message) == (403, "Forbidden", message)


async def _as_reader(api: Wire, method: str, path: str, body: object = None) -> Reply:
    return await api.call(method, path, body, token=VIEW_TOKEN)


async def _as_node(
    api: Wire, method: str, path: str, body: object = None, type: str = "application/json"
) -> Reply:
    return await api.call(method, path, body, token=NODE_TOKEN, type=type)


def _secret(name: str) -> Object:
    return {"metadata": meta(name), "stringData": {"key": "value"}}


# The reader


@pytest.mark.parametrize(
    "kind", [kind for kind in kinds.ALL if kind is not kinds.SECRET], ids=lambda kind: kind.name
)
async def test_a_reader_lists_every_kind_but_secrets(api: Wire, kind: kinds.Kind) -> None:
    root = f"/apis/{kind.group}/{kind.version}" if kind.group else "/api/v1"
    assert (await _as_reader(api, "GET", f"{root}/{kind.plural}")).code == 200
    path = (
        f"{root}/namespaces/default/{kind.plural}" if kind.namespaced else f"{root}/{kind.plural}"
    )
    assert (await _as_reader(api, "GET", path)).code == 200
    assert (await _as_reader(api, "POST", path, {"metadata": meta("x")})).code == 403
    assert (await _as_reader(api, "DELETE", path)).code == 403


async def test_a_reader_sees_no_secret(api: Wire) -> None:
    await api.make(SECRETS, _secret("s"))
    _refused(
        await _as_reader(api, "GET", SECRETS),
        'secrets is forbidden: User "holdfast:view" cannot list resource "secrets" '
        'in API group "" in the namespace "default"',
    )
    _refused(
        await _as_reader(api, "GET", f"{SECRETS}/s"),
        'secrets "s" is forbidden: User "holdfast:view" cannot get resource "secrets" '
        'in API group "" in the namespace "default"',
    )
    _refused(
        await _as_reader(api, "GET", f"{CORE}/secrets?watch=1"),
        'secrets is forbidden: User "holdfast:view" cannot watch resource "secrets" '
        'in API group "" at the cluster scope',
    )


@pytest.mark.parametrize(
    ("method", "path", "what"),
    [
        ("PUT", f"{CONFIG_MAPS}/c", 'update resource "configmaps"'),
        ("PATCH", f"{CONFIG_MAPS}/c", 'patch resource "configmaps"'),
        ("PATCH", f"{CLAIMS}/c/status", 'patch resource "persistentvolumeclaims/status"'),
        ("POST", f"{PODS}/p/exec?command=sh", 'create resource "pods/exec"'),
        ("GET", f"{PODS}/p/exec?command=sh", 'get resource "pods/exec"'),
        ("GET", f"{PODS}/p/attach", 'get resource "pods/attach"'),
        ("POST", f"{PODS}/p/eviction", 'create resource "pods/eviction"'),
        ("PUT", f"{NAMESPACES}/default/finalize", 'update resource "namespaces/finalize"'),
    ],
)
async def test_a_reader_changes_nothing(api: Wire, method: str, path: str, what: str) -> None:
    reply = await _as_reader(api, method, path, {})
    assert (reply.code, reply.reason) == (403, "Forbidden")
    assert f'User "holdfast:view" cannot {what} in API group ""' in reply.message


async def test_a_reader_may_read_logs_status_and_metrics(api: Wire) -> None:
    await api.make(PODS, pod("p"))
    assert (await _as_reader(api, "GET", f"{PODS}/p/status")).code == 200
    # The pod has not run: the answer is about the pod, not about permission.
    assert (await _as_reader(api, "GET", f"{PODS}/p/log")).code != 403
    assert (await _as_reader(api, "GET", "/metrics")).code == 200
    assert (await _as_reader(api, "GET", "/openapi/v3")).code == 200


async def test_what_is_not_served_is_refused_to_those_who_may_not_ask(api: Wire) -> None:
    _refused(
        await _as_reader(api, "GET", "/apis/example.com/v1/namespaces/n/widgets/w"),
        'widgets.example.com "w" is forbidden: User "holdfast:view" cannot get resource '
        '"widgets" in API group "example.com" in the namespace "n"',
    )
    _refused(
        await _as_reader(api, "GET", "/debug/pprof"),
        'forbidden: User "holdfast:view" cannot get path "/debug/pprof"',
    )
    assert (await api.call("GET", "/apis/example.com/v1/widgets")).code == 404


async def test_nobody_acts_as_somebody_else(api: Wire) -> None:
    reply = await api.call("GET", PODS, headers={"Impersonate-User": "x"})
    _refused(
        reply,
        'users "x" is forbidden: User "kubernetes-admin" cannot impersonate resource "users" '
        'in API group "" at the cluster scope: impersonation is not served here',
    )


# Nodes


async def _with_pods(api: Wire) -> None:
    """Two nodes' pods, each with a secret, a config map and a bound claim."""
    for node in ("node-1", "node-2"):
        name = f"of-{node}"
        await api.make(SECRETS, _secret(name))
        await api.make(SECRETS, _secret(f"volume-{name}"))
        await api.make(CONFIG_MAPS, config_map(name))
        secret = {"name": f"volume-{name}", "namespace": "default"}
        source = {"driver": "d.example.com", "volumeHandle": "h", "nodeStageSecretRef": secret}
        spec: Object = {"csi": source, "hostPath": None}
        spec["claimRef"] = {"name": name, "namespace": "default"}
        await api.make(VOLUMES, volume(name, **spec))
        await api.make(CLAIMS, claim(name, volumeName=name, storageClassName=""))
        await api.make(
            PODS,
            pod(
                name,
                nodeName=node,
                containers=[
                    {
                        "name": "main",
                        "image": "busybox",
                        "envFrom": [{"configMapRef": {"name": name}}],
                    }
                ],
                volumes=[
                    {"name": "s", "secret": {"secretName": name}},
                    {"name": "v", "persistentVolumeClaim": {"claimName": name}},
                ],
            ),
        )
        await api.make(
            ATTACHMENTS,
            {
                "metadata": meta(name),
                "spec": {
                    "attacher": "d.example.com",
                    "nodeName": node,
                    "source": {"persistentVolumeName": name},
                },
            },
        )


@pytest.mark.parametrize(
    "path",
    [
        f"{PODS}/of-NODE",
        f"{SECRETS}/of-NODE",
        f"{SECRETS}/volume-of-NODE",
        f"{CONFIG_MAPS}/of-NODE",
        f"{CLAIMS}/of-NODE",
        f"{VOLUMES}/of-NODE",
        f"{ATTACHMENTS}/of-NODE",
    ],
)
async def test_a_node_reads_what_its_pods_need_and_no_more(api: Wire, path: str) -> None:
    await _with_pods(api)
    own, other = path.replace("NODE", "node-1"), path.replace("NODE", "node-2")
    assert (await _as_node(api, "GET", own)).code == 200
    reply = await _as_node(api, "GET", other)
    assert reply.code == 403
    why = "no relationship found between node 'node-1' and this object"
    assert reply.message.startswith(other.split("/")[-2])
    assert reply.message.endswith(f": {why}")
    assert f'User "{NODE_USER}" cannot get resource' in reply.message
    # Reading does not entitle to more.
    assert (await _as_node(api, "DELETE", other)).code == 403
    if not own.startswith(PODS):
        assert (await _as_node(api, "DELETE", own)).code == 403


async def test_a_node_lists_its_own_pods(api: Wire) -> None:
    await _with_pods(api)
    everywhere = f"{CORE}/pods"
    own = await _as_node(api, "GET", f"{everywhere}?fieldSelector=spec.nodeName%3Dnode-1")
    assert [item["metadata"]["name"] for item in own.body["items"]] == ["of-node-1"]
    others = await _as_node(api, "GET", f"{everywhere}?fieldSelector=spec.nodeName%3Dnode-2")
    _refused(
        others,
        f'pods is forbidden: User "{NODE_USER}" cannot list resource "pods" in API group "" at '
        "the cluster scope: can only list/watch pods with spec.nodeName field selector",
    )
    inverted = await _as_node(api, "GET", f"{everywhere}?fieldSelector=spec.nodeName!%3Dnode-1")
    assert inverted.code == 403
    one = await _as_node(api, "GET", f"{SECRETS}?fieldSelector=metadata.name%3Dof-node-1")
    assert [item["metadata"]["name"] for item in one.body["items"]] == ["of-node-1"]
    assert (await _as_node(api, "GET", SECRETS)).code == 403


async def test_a_node_keeps_its_own_node_lease_and_csi_node(api: Wire) -> None:
    for path, kind in ((NODES, "nodes"), (LEASES, "leases"), (CSI_NODES, "csinodes")):
        body: Object = {"metadata": meta("node-1")}
        other: Object = {"metadata": meta("node-2")}
        if path == CSI_NODES:
            body["spec"] = other["spec"] = {"drivers": []}
        assert (await _as_node(api, "POST", path, body)).code == 201, kind
        refused = await _as_node(api, "POST", path, other)
        assert (refused.code, refused.reason) == (403, "Forbidden"), kind
        assert (await _as_node(api, "GET", f"{path}/node-1")).code == 200
        await api.make(path, other)
        patch = {"metadata": {"labels": {"a": "b"}}}
        merge = "application/merge-patch+json"
        assert (await _as_node(api, "PATCH", f"{path}/node-1", patch, merge)).code == 200
        assert (await _as_node(api, "PATCH", f"{path}/node-2", patch, merge)).code == 403


async def test_a_node_cannot_steer_work_to_itself(api: Wire) -> None:
    taint = {"key": "out", "effect": "NoSchedule"}
    await api.make(NODES, {"metadata": meta("node-1"), "spec": {"taints": [taint]}})
    merge = "application/merge-patch+json"
    untaint = await _as_node(api, "PATCH", f"{NODES}/node-1", {"spec": {"taints": None}}, merge)
    why = 'nodes "node-1" is forbidden: node "node-1" is not allowed to modify taints'
    _refused(untaint, why)
    label = {"metadata": {"labels": {"node-restriction.kubernetes.io/secure": "yes"}}}
    _refused(
        await _as_node(api, "PATCH", f"{NODES}/node-1", label, merge),
        'nodes "node-1" is forbidden: is not allowed to modify labels: '
        "node-restriction.kubernetes.io/secure",
    )
    allowed = {"metadata": {"labels": {"kubernetes.io/hostname": "h", "own/label": "x"}}}
    assert (await _as_node(api, "PATCH", f"{NODES}/node-1", allowed, merge)).code == 200
    _refused(
        await _as_node(api, "POST", PODS, pod("p", nodeName="node-1")),
        'pods "p" is forbidden: pod does not have "kubernetes.io/config.mirror" annotation, '
        'node "node-1" can only create mirror pods',
    )


async def test_a_node_reports_on_its_own_pods_only(api: Wire) -> None:
    await _with_pods(api)
    merge = "application/merge-patch+json"
    status = {"status": {"phase": "Running"}}
    own = await _as_node(api, "PATCH", f"{PODS}/of-node-1/status", status, merge)
    assert (own.code, own.body["status"]["phase"]) == (200, "Running")
    _refused(
        await _as_node(api, "PATCH", f"{PODS}/of-node-2/status", status, merge),
        'pods "of-node-2" is forbidden: node "node-1" can only update pod status for pods '
        "with spec.nodeName set to itself",
    )
    assert (await _as_node(api, "PATCH", f"{PODS}/of-node-1", status, merge)).code == 403
    _refused(
        await _as_node(api, "DELETE", f"{PODS}/of-node-2"),
        'pods "of-node-2" is forbidden: node "node-1" can only delete pods with spec.nodeName '
        "set to itself",
    )
    evict = {"metadata": meta("of-node-2")}
    assert (await _as_node(api, "POST", f"{PODS}/of-node-2/eviction", evict)).code == 403
    assert (await _as_node(api, "DELETE", f"{PODS}/of-node-1")).code == 200


async def test_a_node_tells_how_a_claim_grows_and_nothing_else_of_it(api: Wire) -> None:
    await _with_pods(api)
    merge = "application/merge-patch+json"
    grown = {"status": {"capacity": {"storage": "2Gi"}}}
    path = f"{CLAIMS}/of-node-1/status"
    assert (await _as_node(api, "PATCH", path, grown, merge)).code == 200
    assert (await _as_node(api, "PATCH", f"{CLAIMS}/of-node-2/status", grown, merge)).code == 403
    lost = await _as_node(api, "PATCH", path, {"status": {"phase": "Lost"}}, merge)
    assert (lost.code, "is not allowed to update fields other than" in lost.message) == (403, True)


async def test_a_node_writes_events_and_reads_services(api: Wire) -> None:
    event = {
        "metadata": meta("e"),
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
        "reason": "Started",
    }
    assert (await _as_node(api, "POST", EVENTS, event)).code == 201
    assert (await _as_node(api, "GET", f"{CORE}/services")).code == 200
    assert (await _as_node(api, "GET", CLASSES)).code == 403
    assert (await _as_node(api, "GET", NODES)).code == 403
