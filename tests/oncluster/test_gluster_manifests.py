"""What `holdfast prepare gluster manifests` prints, piped into kubectl on a cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import machine
from oncluster.place import Cluster

NODES = [f"--node=kube-node{number}=172.16.10.10{number}:/dev/sdb,/dev/sdc" for number in (1, 2, 3)]


def _prepared(*words: str) -> str:
    argv = [sys.executable, "-m", "holdfast.cli", "prepare", "gluster", *words]
    env = {**os.environ, "PYTHONPATH": str(machine.SOURCE)}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def test_a_real_server_accepts_every_manifest(cluster: Cluster, kubectl_path: Path) -> None:
    if not cluster.real:
        pytest.skip("the embedded API has no roles and no DaemonSets")
    text = _prepared("manifests", "--show-secrets", *NODES)
    apply = ["apply", "--server-side", "--dry-run=server", "--validate=strict", "-o", "name"]
    done = subprocess.run(
        [kubectl_path, f"--kubeconfig={cluster.kubeconfig}", *apply, "-f", "-"],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [
        "daemonset.apps/glusterfs",
        "serviceaccount/heketi-service-account",
        "role.rbac.authorization.k8s.io/heketi",
        "rolebinding.rbac.authorization.k8s.io/heketi",
        "secret/heketi-config-secret",
        "persistentvolumeclaim/heketi-db",
        "service/heketi",
        "deployment.apps/heketi",
        "secret/heketi-secret",
        "storageclass.storage.k8s.io/gluster-heketi",
    ]


def test_the_topology_in_the_secret_is_the_one_that_is_printed() -> None:
    objects = list(yaml.safe_load_all(_prepared("manifests", *NODES)))
    secret = next(each for each in objects if each["metadata"]["name"] == "heketi-config-secret")
    topology = json.loads(_prepared("topology", *NODES))
    assert json.loads(secret["stringData"]["topology.json"]) == topology
    nodes = topology["clusters"][0]["nodes"]
    assert [node["node"]["hostnames"]["storage"] for node in nodes] == [
        [f"172.16.10.10{number}"] for number in (1, 2, 3)
    ]
    assert nodes[0]["devices"] == ["/dev/sdb", "/dev/sdc"]
