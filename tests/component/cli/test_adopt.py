"""`holdfast adopt` beside a running Holdfast: the data stays, the pod finds it again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import machine
from manifests import claim, pod, storage_class


def _volume(here: machine.Machine, name: str, policy: str = "Delete") -> dict[str, Any]:
    here.apply(
        storage_class(name, "kubernetes.io/host-path", reclaimPolicy=policy),
        claim(name, storage_class=name),
    )
    volume_name = here.wait_for_phase("pvc", name, "Bound")["spec"]["volumeName"]
    found = here.get("pv", volume_name)
    assert found is not None
    return found


@pytest.mark.root
def test_the_data_of_an_adopted_volume_stays(shared: machine.Machine, tmp_path: Path) -> None:
    old = _volume(shared, "keeps")
    name = old["metadata"]["name"]
    place = shared.run_pod(pod("keeps", "keeps"))
    (place / "data").write_text("precious")
    undo = tmp_path / "undo.json"

    refused = shared.holdfast("adopt", f"pv/{name}", "--record", str(undo), check=False)
    assert refused.returncode == 1
    assert "pod default/keeps uses claim default/keeps" in refused.stderr
    assert not undo.exists()

    shared.kubectl("delete", "pod", "keeps", "--grace-period=1")
    shared.wait_until_gone("pod", "keeps")
    shown = shared.holdfast("adopt", f"pv/{name}", "--dry-run").stdout
    assert "hostPath:" in shown
    assert "volumeHandle: " + name in shown
    assert f"# 2. set the reclaim policy of pv/{name} to Retain" in shown
    assert shared.get("pv", name) == old

    done = shared.holdfast("adopt", f"pv/{name}", "--record", str(undo))
    assert f"holdfast adopt --undo {undo}" in done.stdout
    new = shared.get("pv", name)
    assert new is not None
    assert new["spec"]["csi"]["volumeHandle"] == name
    assert new["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
    assert json.loads(undo.read_text())["original"]["spec"] == old["spec"]
    again = shared.run_pod(pod("keeps2", "keeps"))
    assert (again / "data").read_text() == "precious"
    shared.kubectl("delete", "pod", "keeps2", "--grace-period=1")
    shared.wait_until_gone("pod", "keeps2")

    shared.holdfast("adopt", "--undo", str(undo))
    back = shared.get("pv", name)
    assert back is not None
    assert back["spec"]["hostPath"] == old["spec"]["hostPath"]
    shared.kubectl("delete", "pvc", "keeps")
    shared.wait_until_gone("pv", name)
    assert name not in shared.stored()


def test_a_volume_that_grew_meanwhile_keeps_its_size(
    shared: machine.Machine, tmp_path: Path
) -> None:
    name = _volume(shared, "grew")["metadata"]["name"]
    undo = str(tmp_path / "undo.json")
    shared.holdfast("adopt", f"pv/{name}", "--record", undo)
    patch = '{"spec":{"capacity":{"storage":"64Mi"}}}'
    shared.kubectl("patch", "pv", name, "-p", patch)
    shared.holdfast("adopt", "--undo", undo)
    back = shared.get("pv", name)
    assert back is not None
    assert "hostPath" in back["spec"]
    assert back["spec"]["capacity"]["storage"] == "64Mi"
    # What the file says of before the undo does not count any more.
    shared.kubectl("patch", "pv", name, "-p", '{"spec":{"mountOptions":["noatime"]}}')
    shared.holdfast("adopt", f"pv/{name}", "--record", undo)
    new = shared.get("pv", name)
    assert new is not None
    assert new["spec"]["mountOptions"] == ["noatime"]
    assert new["spec"]["capacity"]["storage"] == "64Mi"


def test_an_adopted_volume_is_deleted_with_its_claim(
    shared: machine.Machine, tmp_path: Path
) -> None:
    name = _volume(shared, "goes")["metadata"]["name"]
    shared.holdfast("adopt", f"pv/{name}", "--record", str(tmp_path / "undo.json"))
    assert name in shared.stored()
    shared.kubectl("delete", "pvc", "goes")
    shared.wait_until_gone("pv", name)
    assert name not in shared.stored()


@pytest.mark.parametrize("line", range(5))
def test_killed_after_any_line_the_same_command_goes_on(
    shared: machine.Machine, tmp_path: Path, line: int
) -> None:
    claim_name = f"killed-{line}"
    name = _volume(shared, claim_name)["metadata"]["name"]
    undo = tmp_path / "undo.json"
    argv = [sys.executable, "-P", "-m", "holdfast.cli", "adopt", f"pv/{name}"]
    argv += ["--data-dir", str(shared.data_dir), "--record", str(undo)]
    environment = shared.environment() | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        for _ in range(line + 1):
            assert started.stdout.readline()
        started.kill()
    shared.holdfast("adopt", f"pv/{name}", "--record", str(undo))
    volume = shared.wait_for_phase("pv", name, "Bound")
    assert volume["spec"]["csi"]["volumeHandle"] == name
    assert volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
    shared.wait_for_phase("pvc", claim_name, "Bound")
    assert name in shared.stored()


def test_a_volume_the_storage_system_does_not_know_is_refused(shared: machine.Machine) -> None:
    shared.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": "stranger"},
            "spec": {
                "capacity": {"storage": "1Mi"},
                "accessModes": ["ReadWriteOnce"],
                "hostPath": {"path": "/srv/stranger"},
            },
        }
    )
    shared.wait_for_phase("pv", "stranger", "Available")
    done = shared.holdfast("adopt", "pv/stranger", check=False)
    assert done.returncode == 1
    assert "local has no volume /srv/stranger" in done.stderr
    assert shared.holdfast("adopt", check=False).returncode == 2
    assert shared.holdfast("adopt", "pvc/x", check=False).returncode == 2
