"""Helm installs, upgrades, rolls back and removes the example chart on a real `holdfast up`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from machine import ROOT, Failed, Machine, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.root]

CHART = ROOT / "examples" / "21-helm-chart"


class Helm:
    """Helm with the kubeconfig of a machine and directories of its own."""

    def __init__(self, where: Machine) -> None:
        done = subprocess.run(
            [ROOT / "tools" / "servers" / "helm"], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise Failed(f"no helm:\n{done.stderr}")
        self._program = Path(done.stdout.strip())
        self._environment = where.environment()

    def __call__(self, *arguments: str, check: bool = True) -> str:
        argv = [str(self._program), *arguments]
        done = subprocess.run(
            argv, env=self._environment, capture_output=True, text=True, check=False, timeout=90
        )
        if check and done.returncode != 0:
            raise Failed(f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout + ("" if check else done.stderr)

    def releases(self, *options: str) -> list[tuple[str, str, str]]:
        """Give name, revision and status of each release."""
        found = json.loads(self("list", "--all", "-o", "json", *options))
        return [(each["name"], each["revision"], each["status"]) for each in found]


@pytest.fixture
def helm(running: Machine) -> Helm:
    return Helm(running)


def _greeting(cluster: Machine) -> Any:
    found = cluster.get("cm", "web")
    assert found is not None
    return found["data"]["greeting"]


def test_a_release_lives_from_install_to_uninstall(running: Machine, helm: Helm) -> None:
    helm("install", "web", str(CHART), "--wait", "--timeout", "60s")
    assert helm.releases() == [("web", "1", "deployed")]
    written = running.kubectl("exec", "web-0", "--", "cat", "/data/greeting")
    assert written == "hello\n"
    [secret] = [each for each in running.all("secret") if each["type"] == "helm.sh/release.v1"]
    assert secret["metadata"]["labels"]["status"] == "deployed"

    change = ("--set", "greeting=bye", "--set", "replicas=2")
    helm("upgrade", "web", str(CHART), *change, "--wait", "--timeout", "60s")
    assert _greeting(running) == "bye"
    running.wait_for_phase("pod", "web-1", "Running")

    helm("rollback", "web", "1", "--wait", "--timeout", "60s")
    assert _greeting(running) == "hello"
    running.wait_until_gone("pod", "web-1")
    history = json.loads(helm("history", "web", "-o", "json"))
    assert [each["status"] for each in history] == ["superseded", "superseded", "deployed"]

    helm("uninstall", "web", "--wait", "--timeout", "60s")
    assert helm.releases() == []
    assert running.get("statefulset", "web") is None
    assert [claim["metadata"]["name"] for claim in running.all("pvc")] == [
        "data-web-0",
        "data-web-1",
    ]


def test_a_release_gets_its_own_namespace(running: Machine, helm: Helm) -> None:
    new = ("--namespace", "apart", "--create-namespace", "--atomic", "--timeout", "60s")
    helm("install", "web", str(CHART), *new)
    assert helm.releases("--namespace", "apart") == [("web", "1", "deployed")]
    assert helm.releases() == []
    helm("uninstall", "web", "--namespace", "apart", "--wait")
    eventually(lambda: running.all("service", "apart") == [], 20, "the service is gone")


def test_what_fails_is_taken_back(running: Machine, helm: Helm) -> None:
    bad = ("--set", "storageClass=none", "--atomic", "--timeout", "5s")
    said = helm("install", "web", str(CHART), *bad, check=False)
    assert "has been uninstalled due to atomic being set" in said
    assert helm.releases() == []
    assert running.get("cm", "web") is None


def test_a_dry_run_asks_the_server_and_changes_nothing(running: Machine, helm: Helm) -> None:
    said = helm("install", "web", str(CHART), "--dry-run=server")
    assert "kind: StatefulSet" in said
    assert running.all("secret") == []
