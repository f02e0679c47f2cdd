"""The Kubernetes executor of the Heketi service, against pods that really run.

Holdfast's own API serves exec as a cluster's does; the pod stands where one with glusterd would.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

import machine
from holdfast.heketi import errors
from holdfast.heketi.executors import turns
from holdfast.heketi.executors.kubernetes import KubernetesTransport, KubeSettings
from holdfast.server import kubeconfig

pytestmark = [pytest.mark.root, pytest.mark.program("bwrap")]
POD = """
apiVersion: v1
kind: Pod
metadata:
  name: gluster-pod
  labels: {glusterfs-node: node-a, glusterfs: pod}
spec:
  containers:
  - name: glusterfs
    image: gluster
    command: ["sleep", "600"]
"""


@pytest.fixture
async def transport(
    running: machine.Machine, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[KubernetesTransport]:
    monkeypatch.setattr(turns, "LOCK", "/tmp/holdfast-heketi.lock")
    running.create(POD)
    running.kubectl("wait", "--for=condition=Ready", "pod/gluster-pod", "--timeout=60s")
    access = kubeconfig.read(kubeconfig.path_in(running.data_dir))
    authority = running.data_dir / "authority.crt"
    authority.write_bytes(access.authority)
    made = KubernetesTransport(KubeSettings(access.url, access.token, authority))
    yield made
    await made.close()


async def test_commands_run_in_the_pod_of_a_host(transport: KubernetesTransport) -> None:
    said = await transport.run("node-a", ["printf", "%s|", "a b", "$HOME"])
    assert (said.code, said.stdout) == (0, "a b|$HOME|")
    failed = await transport.run("node-a", ["sh", "-c", "echo no >&2; exit 7"], check=False)
    assert (failed.code, failed.stderr) == (7, "no\n")
    with pytest.raises(errors.ExecutionFailed, match="no"):
        await transport.run("node-a", ["sh", "-c", "echo no >&2; exit 7"])


async def test_a_host_without_a_pod_is_unreachable(transport: KubernetesTransport) -> None:
    with pytest.raises(errors.Unreachable, match="no pod of GlusterFS"):
        await transport.run("node-b", ["true"])
