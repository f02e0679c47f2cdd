"""Pods run: real kubectl, a real `holdfast up`, real sandboxes on this machine's root."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import signal
import ssl
import struct
import subprocess
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import websockets
import websockets.sync.client

import machine
from holdfast.node import processes
from holdfast.server import kubeconfig
from machine import eventually

pytestmark = pytest.mark.root

Object = dict[str, Any]


@pytest.fixture(params=["true", "false"], ids=["WebSocket", "SPDY"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over what kubectl talks to containers; those before 1.29 know SPDY only and do not look."""
    monkeypatch.setenv("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", request.param)


def pod(name: str, script: str | None, **fields: Any) -> Object:
    """A pod with one container `c` that runs a shell script, or only an image."""
    spec = {key: fields.pop(key) for key in list(fields) if key in SPEC}
    container = {"name": "c", "image": "busybox", **fields}
    if script is not None:
        container["command"] = ["sh", "-c", script]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 5, "containers": [container], **spec},
    }


SPEC = (
    *("restartPolicy", "volumes", "initContainers", "securityContext"),
    "terminationGracePeriodSeconds",
)


def claim(name: str, **spec: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "local",
            "resources": {"requests": {"storage": "32Mi"}},
            **spec,
        },
    }


def container_of(obj: Object, index: int = 0) -> Object:
    found: Object = obj["status"]["containerStatuses"][index]
    return found


def inside(holdfast: machine.Machine, name: str, script: str) -> str:
    said: str = holdfast.kubectl("exec", name, "-c", "c", "--", "sh", "-c", script)
    return said


def events(holdfast: machine.Machine, name: str) -> str:
    return holdfast.kubectl("get", "events", "--field-selector", f"involvedObject.name={name}")


def delete(holdfast: machine.Machine, *names: str) -> None:
    holdfast.kubectl("delete", "pod", *names, "--grace-period=1")


def companions(holdfast: machine.Machine, name: str) -> list[processes.Identity]:
    """Who runs the containers of a pod, as the node noted it."""
    obj = holdfast.get("pod", name)
    assert obj is not None
    pattern = f"nodes/*/containers/{obj['metadata']['uid']}/*/*/process.json"
    return [
        msgspec.json.decode(path.read_bytes(), type=processes.Identity)
        for path in holdfast.data_dir.glob(pattern)
    ]


def alive(identity: processes.Identity) -> bool:
    """Whether a process has not ended; one that nobody collected has."""
    pidfd = processes.open_if_same(identity)
    if pidfd is None:
        return False
    try:
        return "Z" not in Path(f"/proc/{identity.pid}/stat").read_text().rpartition(")")[2][:3]
    finally:
        os.close(pidfd)


def test_an_image_without_a_command_sleeps_with_its_volume_in_place(
    shared: machine.Machine,
) -> None:
    mounts = [{"name": "v", "mountPath": path} for path in ("/var/lib/www/html", "/mnt")]
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "web"}}]
    web = pod("nginx", None, volumes=volumes, volumeMounts=mounts)
    shared.apply(claim("web"), web)
    obj = shared.wait_for_phase("pod", "nginx", "Running")
    assert container_of(obj)["imageID"] == "holdfast://asleep"
    assert shared.kubectl("exec", "nginx", "--", "ls", "/var/lib/www/html") == "lost+found\n"
    usage = shared.kubectl("exec", "nginx", "--", "df", "-hT", "/mnt").splitlines()[1].split()
    assert usage[1] == "ext4" and usage[6] == "/mnt" and usage[0].startswith("/dev/loop")
    told = eventually(lambda: events(shared, "nginx"))
    assert "only sleeps" in told and "not pulled" in told
    assert "only sleeps" in shared.kubectl("logs", "nginx")
    delete(shared, "nginx")


def test_a_missing_program_sleeps_instead_of_failing(shared: machine.Machine) -> None:
    obj = pod("passenger", None, command=["/sbin/my_init"])
    shared.apply(obj)
    running = shared.wait_for_phase("pod", "passenger", "Running")
    condition = next(
        each for each in running["status"]["conditions"] if each["type"].startswith("holdfast.dev")
    )
    assert condition["status"] == "False" and "/sbin/my_init" in condition["message"]
    assert inside(shared, "passenger", "hostname") == "passenger\n"
    delete(shared, "passenger")


def test_a_container_is_fenced_in(shared: machine.Machine) -> None:
    shared.apply(pod("fenced", "sleep infinity"))
    shared.wait_for_phase("pod", "fenced", "Running")
    status = inside(shared, "fenced", "cat /proc/self/status")
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert facts["NoNewPrivs"] == "1" and facts["CapBnd"] == facts["CapEff"]
    assert not int(facts["CapBnd"], 16) & (1 << 21 | 1 << 19 | 1 << 16), "no admin, no ptrace"
    for attempt in ("touch /etc/x", "touch /usr/x", "echo 1 >/proc/sys/vm/drop_caches"):
        assert (
            inside(shared, "fenced", f"({attempt}) 2>&1 || true")
            .strip()
            .endswith("Read-only file system")
        )
    hidden = inside(shared, "fenced", f"ls {shared.data_dir} 2>&1 || true")
    assert "pki" not in hidden and "state.db" not in hidden
    assert int(inside(shared, "fenced", "ls -d /proc/[0-9]* | wc -l")) < 10
    assert inside(shared, "fenced", "echo x >/tmp/x; cat /tmp/x; hostname") == "x\nfenced\n"
    delete(shared, "fenced")


def test_user_group_and_environment_come_from_the_pod(shared: machine.Machine) -> None:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "pw"},
        "stringData": {"password": "geheim"},
    }
    env = [
        {"name": "A", "value": "a"},
        {"name": "AB", "value": "$(A)b $$(A)"},
        {"name": "PW", "valueFrom": {"secretKeyRef": {"name": "pw", "key": "password"}}},
        {"name": "ME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
    ]
    made = pod(
        "who",
        'echo "$AB|$PW|$ME|$(id -u)|$(id -g)|$(id -G)|$(pwd)|$0"; sleep infinity',
        env=env,
        args=["$(A)"],
        workingDir="/not/here/before",
        securityContext={"runAsUser": 1234, "runAsGroup": 5678, "fsGroup": 4321},
        volumes=[{"name": "e", "emptyDir": {}}],
        volumeMounts=[{"name": "e", "mountPath": "/data"}],
    )
    shared.apply(secret, made)
    shared.wait_for_phase("pod", "who", "Running")
    line = eventually(lambda: shared.kubectl("logs", "who"))
    assert line == "ab $(A)|geheim|who|1234|5678|5678 4321|/not/here/before|a\n"
    assert inside(shared, "who", "touch /data/x; stat -c %g /data/x; echo $PW") == "4321\ngeheim\n"
    assert "CapEff:\t0000000000000000" in inside(shared, "who", "cat /proc/self/status")
    for identity in companions(shared, "who"):
        assert b"geheim" not in Path(f"/proc/{identity.pid}/cmdline").read_bytes()
    delete(shared, "who")


def test_a_pod_that_keeps_more_than_its_scratch_limit_is_evicted(shared: machine.Machine) -> None:
    script = "head -c $SIZE /dev/urandom >/scratch/file; sleep infinity"
    volumes = [{"name": "scratch", "emptyDir": {"sizeLimit": "1Mi"}}]
    for name, size in (("modest", "500000"), ("greedy", "2000000")):
        made = pod(
            name,
            script,
            env=[{"name": "SIZE", "value": size}],
            volumes=volumes,
            volumeMounts=[{"name": "scratch", "mountPath": "/scratch"}],
        )
        shared.apply(made)
        shared.wait_for_phase("pod", name, "Running")
    shared.wait_for_phase("pod", "greedy", "Failed")
    found = shared.get("pod", "greedy")
    assert found is not None
    status = found["status"]
    text = 'Usage of EmptyDir volume "scratch" exceeds the limit "1Mi". '
    assert (status["reason"], status["message"]) == ("Evicted", text)
    ended = status["containerStatuses"][0]["state"]["terminated"]
    assert ended["exitCode"] != 0
    ready = next(each for each in status["conditions"] if each["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "PodFailed")
    assert not any(map(alive, companions(shared, "greedy")))
    described = shared.kubectl("describe", "pod", "greedy").split()
    assert described[described.index("Reason:") + 1] == "Evicted"
    told = shared.kubectl("get", "events", "--field-selector", "reason=Evicted", "-o", "name")
    assert len(told.splitlines()) == 1
    modest = shared.get("pod", "modest")
    assert modest is not None
    assert modest["status"]["phase"] == "Running"
    delete(shared, "modest")
    delete(shared, "greedy")


def test_sub_paths_read_only_mounts_and_raw_devices(shared: machine.Machine) -> None:
    made = pod(
        "views",
        "sleep infinity",
        volumes=[
            {"name": "v", "persistentVolumeClaim": {"claimName": "fs"}},
            {"name": "raw", "persistentVolumeClaim": {"claimName": "raw"}},
        ],
        volumeMounts=[
            {"name": "v", "mountPath": "/all"},
            {"name": "v", "mountPath": "/part", "subPath": "a/b"},
            {"name": "v", "mountPath": "/shown", "readOnly": True},
        ],
        volumeDevices=[{"name": "raw", "devicePath": "/dev/xvda"}],
    )
    shared.apply(claim("fs"), claim("raw", volumeMode="Block"), made)
    shared.wait_for_phase("pod", "views", "Running")
    assert inside(shared, "views", "echo 1 >/part/x; cat /all/a/b/x /shown/a/b/x") == "1\n1\n"
    assert "Read-only" in inside(shared, "views", "touch /shown/y 2>&1 || true")
    size = inside(shared, "views", "echo raw >/dev/xvda; blockdev --getsize64 /dev/xvda")
    assert int(size) >= 32 << 20
    delete(shared, "views")
    shared.kubectl("delete", "pvc", "fs", "raw")


def test_a_container_that_cannot_be_made_holds_nothing_back(shared: machine.Machine) -> None:
    made = pod(
        "unmade",
        "true",
        env=[{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "k"}}}],
        volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "kept"}}],
        volumeMounts=[{"name": "v", "mountPath": "/v", "subPath": "a"}],
    )
    shared.apply(claim("kept"), made)

    def failing() -> bool:
        obj = shared.get("pod", "unmade")
        entries = (obj or {}).get("status", {}).get("containerStatuses") or [{}]
        waiting = entries[0].get("state", {}).get("waiting", {})
        return bool(waiting.get("reason") == "CreateContainerConfigError")

    eventually(failing)
    delete(shared, "unmade")
    shared.kubectl("delete", "pvc", "kept")


def test_init_containers_run_in_order_before_the_others(shared: machine.Machine) -> None:
    mounts = [{"name": "e", "mountPath": "/data"}]
    first = [
        {
            "name": f"i{number}",
            "image": "busybox",
            "command": ["sh", "-c", f"sleep 0.3; echo {number} >>/data/order"],
            "volumeMounts": mounts,
        }
        for number in (1, 2)
    ]
    made = pod(
        "ordered",
        "echo 3 >>/data/order; sleep infinity",
        initContainers=first,
        volumes=[{"name": "e", "emptyDir": {}}],
        volumeMounts=mounts,
    )
    shared.apply(made)
    obj = shared.wait_for_phase("pod", "ordered", "Running")
    assert inside(shared, "ordered", "cat /data/order").split() == ["1", "2", "3"]
    codes = [
        each["state"]["terminated"]["exitCode"] for each in obj["status"]["initContainerStatuses"]
    ]
    assert codes == [0, 0]
    delete(shared, "ordered")


def test_phases_exit_codes_and_messages(shared: machine.Machine) -> None:
    good = pod("good", "echo done >/dev/termination-log", restartPolicy="Never")
    words = {"terminationMessagePolicy": "FallbackToLogsOnError"}
    bad = pod("bad", "echo so sad; exit 3", restartPolicy="Never", **words)
    shared.apply(good, bad)
    obj = shared.wait_for_phase("pod", "good", "Succeeded")
    ended = container_of(obj)["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"], ended["message"]) == (0, "Completed", "done\n")
    obj = shared.wait_for_phase("pod", "bad", "Failed")
    ended = container_of(obj)["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"], ended["message"]) == (3, "Error", "so sad\n")
    assert shared.kubectl("logs", "bad") == "so sad\n"
    delete(shared, "good", "bad")


def test_a_failing_container_is_restarted_and_backs_off(shared: machine.Machine) -> None:
    shared.apply(pod("crash", "echo attempt; exit 1"))

    def backing_off() -> Object | None:
        obj = shared.get("pod", "crash")
        entries = (obj or {}).get("status", {}).get("containerStatuses") or [{}]
        waiting = entries[0].get("state", {}).get("waiting", {})
        return entries[0] if waiting.get("reason") == "CrashLoopBackOff" else None

    entry = eventually(backing_off)
    assert entry["restartCount"] == 1 and "back-off 10s" in entry["state"]["waiting"]["message"]
    assert entry["lastState"]["terminated"]["exitCode"] == 1
    assert shared.kubectl("logs", "crash", "--previous") == "attempt\n"
    delete(shared, "crash")


def test_readiness_and_liveness_are_probed(shared: machine.Machine) -> None:
    probe = {"periodSeconds": 1, "failureThreshold": 1}
    made = pod(
        "probed",
        "touch /tmp/alive; sleep infinity",
        readinessProbe={"exec": {"command": ["test", "-e", "/tmp/ready"]}, **probe},
        livenessProbe={"exec": {"command": ["test", "-e", "/tmp/alive"]}, **probe},
        startupProbe={"exec": {"command": ["test", "-e", "/tmp/alive"]}, "periodSeconds": 1},
    )
    shared.apply(made)
    obj = shared.wait_for_phase("pod", "probed", "Running")
    assert container_of(obj)["ready"] is False
    inside(shared, "probed", "touch /tmp/ready")
    shared.kubectl("wait", "--for=condition=Ready", "pod/probed", "--timeout=20s")
    inside(shared, "probed", "rm /tmp/alive")

    def restarted() -> bool:
        found = shared.get("pod", "probed")
        return found is not None and container_of(found)["restartCount"] == 1

    eventually(restarted)
    told = eventually(
        lambda: [
            text
            for text in [events(shared, "probed")]
            if "Liveness probe failed" in text and "will be restarted" in text
        ]
    )
    assert told
    delete(shared, "probed")


def test_deletion_asks_first_and_volumes_stay_until_the_end(shared: machine.Machine) -> None:
    volumes = [{"name": "h", "hostPath": {"path": str(shared.data_dir.parent)}}]
    made = pod(
        "polite",
        'trap "sleep 0.5; echo term >>/host/said; exit 0" TERM; while :; do sleep 0.1; done',
        lifecycle={"preStop": {"exec": {"command": ["sh", "-c", "echo hook >/host/said"]}}},
        volumes=volumes,
        volumeMounts=[{"name": "h", "mountPath": "/host"}],
    )
    shared.apply(made)
    shared.wait_for_phase("pod", "polite", "Running")
    shared.kubectl("delete", "pod", "polite")
    assert (shared.data_dir.parent / "said").read_text() == "hook\nterm\n"
    left = [path.name for path in shared.data_dir.glob("nodes/*/containers/*/c")]
    assert left == []


def test_a_container_that_does_not_listen_is_killed_after_its_grace(
    shared: machine.Machine,
) -> None:
    shared.apply(pod("deaf", 'trap "" TERM; while :; do sleep 0.1; done'))
    shared.wait_for_phase("pod", "deaf", "Running")
    running = companions(shared, "deaf")
    started = time.monotonic()
    shared.kubectl("delete", "pod", "deaf", "--grace-period=2")
    assert 1.5 < time.monotonic() - started < 10
    assert not any(alive(identity) for identity in running)


def test_forced_deletion_leaves_no_process(shared: machine.Machine) -> None:
    shared.apply(pod("forced", 'trap "" TERM; while :; do sleep 0.1; done'))
    shared.wait_for_phase("pod", "forced", "Running")
    running = companions(shared, "forced")
    shared.kubectl("delete", "pod", "forced", "--force", "--grace-period=0")
    eventually(lambda: not any(alive(identity) for identity in running))


def test_logs_can_be_cut_stamped_and_followed(shared: machine.Machine) -> None:
    script = "echo one; echo two >&2; printf three; sleep 0.7; echo; echo four; exit 0"
    shared.apply(pod("talk", script, restartPolicy="Never"))
    eventually(lambda: "two" in shared.kubectl("logs", "talk", check=False))
    followed = shared.kubectl("logs", "-f", "talk")
    assert sorted(followed.splitlines()) == ["four", "one", "three", "two"]
    assert shared.kubectl("logs", "talk", "--tail=1") == "four\n"
    stamped = shared.kubectl("logs", "talk", "--timestamps", "--tail=1").split()
    assert stamped[1] == "four" and stamped[0].endswith("Z") and "." in stamped[0]
    assert shared.kubectl("logs", "talk", "--since-time=2100-01-01T00:00:00Z") == ""
    assert "not found" in shared.kubectl("logs", "talk", "--previous", check=False)
    assert "not valid for pod" in shared.kubectl("logs", "talk", "-c", "other", check=False)
    delete(shared, "talk")


@pytest.mark.usefixtures("transport")
def test_exec_carries_streams_exit_codes_and_large_input(shared: machine.Machine) -> None:
    shared.apply(pod("talker", "sleep infinity"))
    shared.wait_for_phase("pod", "talker", "Running")
    run = [*("exec", "-i", "talker", "--"), "sh", "-c"]
    data = "x" * 3_000_000
    assert shared.kubectl(*run, "wc -c", stdin=data).strip() == str(len(data))
    both = shared.kubectl(
        "exec", "talker", "--", "sh", "-c", "echo o; echo e >&2; exit 7", check=False
    )
    assert "o\n" in both and "e\n" in both and "exit code 7" in both
    assert "not found" in shared.kubectl("exec", "nobody", "--", "true", check=False)
    delete(shared, "talker")


def test_version_4_of_the_protocol_is_spoken_too(shared: machine.Machine) -> None:
    shared.apply(pod("older", "sleep infinity"))
    shared.wait_for_phase("pod", "older", "Running")
    access = kubeconfig.read(shared.kubeconfig)
    url = f"{shared.url.replace('https', 'wss')}/api/v1/namespaces/default/pods/older/exec"
    query = "?container=c&command=sh&command=-c&command=echo+hi;exit+3&stdout=true&stderr=true"
    context = ssl.create_default_context(cadata=access.authority.decode())
    # The client reads in one thread and writes in another, which with the session tickets of
    # TLS 1.3 now and then loses what it writes.
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    headers = {"Authorization": f"Bearer {access.token}"}

    def connect(suffix: str, protocol: str) -> websockets.sync.client.ClientConnection:
        return websockets.sync.client.connect(
            url + suffix,
            ssl=context,
            subprotocols=[websockets.Subprotocol(protocol)],
            additional_headers=headers,
        )

    with connect(query, "v4.channel.k8s.io") as connection:
        heard = [message for message in connection if isinstance(message, bytes)]
    assert b"".join(m[1:] for m in heard if m[0] == 1) == b"hi\n"
    outcome = json.loads(next(m[1:] for m in heard if m[0] == 3))
    assert outcome["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]
    with pytest.raises(websockets.InvalidStatus) as refused:
        connect("?command=true", "v4.channel.k8s.io")
    assert refused.value.response.status_code == 400
    headers.clear()
    with pytest.raises(websockets.InvalidStatus) as refused:
        connect(query, "v5.channel.k8s.io")
    assert refused.value.response.status_code == 403
    delete(shared, "older")


@pytest.mark.usefixtures("transport")
def test_files_can_be_copied_both_ways(shared: machine.Machine, tmp_path: Path) -> None:
    shared.apply(pod("files", "sleep infinity"))
    shared.wait_for_phase("pod", "files", "Running")
    content = os.urandom(2_000_000)
    (tmp_path / "there").write_bytes(content)
    shared.kubectl("cp", str(tmp_path / "there"), "files:/tmp/copy")
    shared.kubectl("cp", "files:/tmp/copy", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == content
    delete(shared, "files")


@pytest.mark.usefixtures("transport")
def test_a_terminal_has_a_name_and_a_size(shared: machine.Machine, kubectl_path: Path) -> None:
    shared.apply(pod("screen", "sleep infinity"))
    shared.wait_for_phase("pod", "screen", "Running")
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
    kubectl = subprocess.Popen(
        [str(kubectl_path), "exec", "-it", "screen", "--", "sh"],
        env=shared.environment(),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    seen = b""
    os.set_blocking(ours, False)

    def see(text: bytes) -> Callable[[], bool]:
        def look() -> bool:
            nonlocal seen
            try:
                seen += os.read(ours, 4096)
            except (BlockingIOError, OSError):
                pass
            return text in seen

        return look

    eventually(see(b"# "))
    os.write(ours, b"tty; sleep 0.5; stty size\n")
    eventually(see(b"33 77"))
    assert b"/dev/pts/0" in seen
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 44, 99, 0, 0))
    kubectl.send_signal(signal.SIGWINCH)
    os.write(ours, b"until stty size | grep '44 9[9]'; do sleep 0.1; done; exit 4\n")
    eventually(see(b"44 99"))
    code = kubectl.wait(20)
    see(b"")()
    assert code == 4, seen
    os.close(ours)
    delete(shared, "screen")


@pytest.mark.usefixtures("transport")
def test_a_client_that_vanishes_takes_its_program_along(
    shared: machine.Machine, kubectl_path: Path
) -> None:
    shared.apply(pod("lonely", "sleep infinity"))
    shared.wait_for_phase("pod", "lonely", "Running")
    kubectl = subprocess.Popen(
        [str(kubectl_path), "exec", "lonely", "--", "sh", "-c", "sleep 4321 & sleep 4321"],
        env=shared.environment(),
        stdout=subprocess.DEVNULL,
    )

    def count() -> int:
        return int(
            inside(
                shared,
                "lonely",
                "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -o 'sleep [4]321' | wc -l",
            )
        )

    eventually(lambda: count() >= 2)
    kubectl.send_signal(signal.SIGKILL)
    kubectl.wait()
    eventually(lambda: count() == 0)
    delete(shared, "lonely")


@pytest.mark.usefixtures("transport")
def test_attach_reaches_the_container_itself(shared: machine.Machine) -> None:
    script = "while read line; do echo got $line; done; echo end; sleep 1"
    shared.apply(pod("listener", script, stdin=True, stdinOnce=True, restartPolicy="Never"))
    shared.wait_for_phase("pod", "listener", "Running")
    said = shared.kubectl("attach", "-i", "listener", stdin="a\nb\n", check=False)
    assert "got a\ngot b\n" in said
    shared.wait_for_phase("pod", "listener", "Succeeded")
    assert shared.kubectl("logs", "listener") == "got a\ngot b\nend\n"
    delete(shared, "listener")


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_containers_survive_the_control_plane(
    how: str, new_machine: Callable[[], machine.Machine]
) -> None:
    holdfast = new_machine().start()
    script = "while :; do date +%s%N; sleep 0.2; done"
    holdfast.apply(
        pod("counter", script),
        pod("brief", "sleep 1.5; exit 9", restartPolicy="Never"),
        pod("nginx", None),
    )
    for name in ("counter", "brief", "nginx"):
        holdfast.wait_for_phase("pod", name, "Running")
    before = holdfast.get("pod", "counter")
    running = companions(holdfast, "counter") + companions(holdfast, "nginx")
    assert running and (holdfast.stop if how == "stop" else holdfast.kill)() is not None
    time.sleep(2)
    assert all(alive(identity) for identity in running)
    holdfast.start()
    ended = holdfast.wait_for_phase("pod", "brief", "Failed")
    assert container_of(ended)["state"]["terminated"]["exitCode"] == 9
    after = holdfast.get("pod", "counter")
    assert before is not None and after is not None
    assert container_of(after)["containerID"] == container_of(before)["containerID"]
    assert container_of(after)["restartCount"] == 0
    assert inside(holdfast, "counter", "echo here") == "here\n"
    lines = [int(line) for line in holdfast.kubectl("logs", "counter").split()]
    assert max(b - a for a, b in itertools.pairwise(lines)) < 1_500_000_000
    delete(holdfast, "counter", "nginx", "brief")
    assert not any(alive(identity) for identity in running)
    assert json.loads(holdfast.kubectl("get", "pods", "-o", "json"))["items"] == []


def test_without_bubblewrap_pods_hold_their_volumes_and_say_what_is_missing(
    new_machine: Callable[[], machine.Machine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for directory in reversed(os.environ["PATH"].split(":")):
        for program in Path(directory).glob("*"):
            (programs / program.name).unlink(missing_ok=True)
            (programs / program.name).symlink_to(program)
    (programs / "bwrap").unlink()
    monkeypatch.setenv("PATH", str(programs))
    holdfast = new_machine().start()
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]
    mounts = [{"name": "v", "mountPath": "/v"}]
    holdfast.apply(claim("c"), pod("p", "true", volumes=volumes, volumeMounts=mounts))
    obj = holdfast.wait_for_phase("pod", "p", "Running")
    condition = next(
        each for each in obj["status"]["conditions"] if each["type"].startswith("holdfast.dev")
    )
    assert condition["reason"] == "ContainersNotRun"
    assert "install the package bubblewrap" in condition["message"]
    assert list(holdfast.data_dir.glob("nodes/*/pods/*/volumes/*/*/mount/lost+found"))
    assert eventually(lambda: "ContainersNotRun" in events(holdfast, "p"))
    for arguments in (["logs", "p"], ["exec", "p", "--", "true"]):
        assert "install the package bubblewrap" in holdfast.kubectl(*arguments, check=False)
    holdfast.kubectl("delete", "pod", "p")
