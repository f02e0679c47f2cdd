"""Ports of pods, forwarded by real kubectl: over its WebSocket tunnel and over plain SPDY."""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import http.client
import os
import re
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import machine
from holdfast.server import kubeconfig
from machine import eventually

pytestmark = pytest.mark.root

STDLIB = Path(os.__file__).parent

# Reads a line and does what it says: `take` answers what it got up to the end of the input,
# `give N` sends N bytes, `hold` sends nothing and says so when the other side is gone.
SERVER = """
import hashlib, socket, sys, threading
def answer(file, verb, *rest):
    if verb == "take":
        file.write(hashlib.sha256(file.read()).hexdigest().encode())
    elif verb == "give":
        block = bytes(range(256)) * 256
        for _ in range(int(rest[0]) // len(block)):
            file.write(block)
    else:
        file.read()
    file.close()
def serve(peer):
    file = peer.makefile("rwb")
    words = file.readline().decode().split()
    print("began", words[0], flush=True)
    try:
        answer(file, *words)
    except OSError:
        pass
    peer.close()
    print("ended", words[0], flush=True)
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listening", flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""


@pytest.fixture(autouse=True, params=["true", "false"], ids=["WebSocket", "SPDY"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What kubectl forwards over; those before 1.31 know SPDY only and do not look."""
    monkeypatch.setenv("KUBECTL_PORT_FORWARD_WEBSOCKETS", request.param)


@pytest.fixture(scope="module")
def port(shared: machine.Machine) -> int:
    """The port that the pod `server` listens on."""
    number = free_port()
    shared.apply(server_pod("server", number))
    shared.wait_for_phase("pod", "server", "Running")
    eventually(lambda: "listening" in shared.kubectl("logs", "server"))
    return number


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number: int = listener.getsockname()[1]
        return number


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def server_pod(name: str, port: int) -> dict[str, Any]:
    command = ["python3", "-c", SERVER, str(port)]
    container = {"name": "c", "image": "busybox", "command": command}
    spec = {"terminationGracePeriodSeconds": 1, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


class Forward:
    """A running `kubectl port-forward` and what it says."""

    def __init__(self, holdfast: machine.Machine, kubectl: Path, pod: str, port: int) -> None:
        self.process = subprocess.Popen(
            [str(kubectl), "port-forward", f"pod/{pod}", f":{port}"],
            env=holdfast.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said = ""
        self._reading = threading.Thread(target=self._read)
        self._reading.start()
        try:
            found = eventually(lambda: re.search(r"127\.0\.0\.1:(\d+) ->", self.said))
        except machine.Failed as error:
            self.close()
            raise machine.Failed(self.said) from error
        self.port = int(found[1])

    def connect(self, line: str) -> socket.socket:
        made = socket.create_connection(("127.0.0.1", self.port), 20)
        made.sendall(line.encode() + b"\n")
        return made

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reading.join()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stdout:
            for line in stdout:
                self.said += line


@contextlib.contextmanager
def forwarding(
    holdfast: machine.Machine, kubectl: Path, port: int, pod: str = "server"
) -> Iterator[Forward]:
    forward = Forward(holdfast, kubectl, pod, port)
    try:
        yield forward
    finally:
        forward.close()


def everything(connection: socket.socket) -> bytes:
    with connection:
        return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def descriptors(holdfast: machine.Machine) -> int:
    return len(list(Path(f"/proc/{holdfast.pid}/fd").iterdir()))


def test_a_client_may_say_all_before_it_listens(
    shared: machine.Machine, kubectl_path: Path, port: int
) -> None:
    content = os.urandom(20_000_000)
    with forwarding(shared, kubectl_path, port) as forward:
        connection = forward.connect("take")
        connection.sendall(content)
        connection.shutdown(socket.SHUT_WR)
        assert everything(connection).decode() == hashlib.sha256(content).hexdigest()


def test_much_comes_back_on_several_connections_at_once(
    shared: machine.Machine, kubectl_path: Path, port: int
) -> None:
    size = 8 << 20
    with forwarding(shared, kubectl_path, port) as forward:
        with concurrent.futures.ThreadPoolExecutor(4) as threads:
            several = [threads.submit(everything, forward.connect(f"give {size}")) for _ in "1234"]
        digests = {hashlib.sha256(each.result()).digest() for each in several}
    assert digests == {hashlib.sha256(bytes(range(256)) * (size // 256)).digest()}


def test_a_connection_that_takes_nothing_does_not_hold_up_another(
    shared: machine.Machine, kubectl_path: Path, port: int
) -> None:
    with forwarding(shared, kubectl_path, port) as forward:
        held = forward.connect("hold")
        with held:
            for _ in range(20):
                assert len(everything(forward.connect("give 65536"))) == 65536


def test_web_pages_come_through(
    shared: machine.Machine, kubectl_path: Path, tmp_path: Path
) -> None:
    number = free_port()
    pod = server_pod("web", number)
    command = ["python3", "-m", "http.server", str(number), "--bind", "127.0.0.1"]
    pod["spec"]["containers"][0] |= {"command": command, "workingDir": str(STDLIB)}
    shared.apply(pod)
    shared.wait_for_phase("pod", "web", "Running")
    eventually(lambda: listens(number))
    with forwarding(shared, kubectl_path, number, "web") as forward:
        for _ in range(3):
            client = http.client.HTTPConnection("127.0.0.1", forward.port, timeout=20)
            client.request("GET", "/os.py")
            answer = client.getresponse()
            assert (answer.status, answer.read()) == (200, (STDLIB / "os.py").read_bytes())
            client.close()
    shared.kubectl("delete", "pod", "web")


def test_a_port_nobody_listens_on_is_told_by_name(
    shared: machine.Machine, kubectl_path: Path, port: int
) -> None:
    closed = free_port()
    obj = shared.get("pod", "server")
    assert obj is not None
    with forwarding(shared, kubectl_path, closed) as forward:
        assert everything(forward.connect("give 65536")) == b""
        eventually(lambda: "connection refused" in forward.said)
    words = f"error forwarding port {closed} to pod server, uid {obj['metadata']['uid']}: "
    assert words in forward.said
    assert f"IPv4: dial 127.0.0.1:{closed}: connect: connection refused" in forward.said


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_client_that_goes_takes_its_connections_along(
    how: signal.Signals, shared: machine.Machine, kubectl_path: Path, port: int
) -> None:
    def ended(verb: str) -> int:
        return shared.kubectl("logs", "server").count(f"ended {verb}")

    before, given, held = descriptors(shared), ended("give"), ended("hold")
    # One connection waits for input, and the output of the other nobody takes.
    with (
        forwarding(shared, kubectl_path, port) as forward,
        forward.connect("hold"),
        forward.connect("give 1000000000") as stuck,
    ):
        stuck.recv(1)
        eventually(lambda: "began" in shared.kubectl("logs", "server", "--tail=1"))
        assert descriptors(shared) > before
        forward.process.send_signal(how)
        forward.process.wait(20)
    eventually(lambda: (ended("give"), ended("hold")) == (given + 1, held + 1))
    eventually(lambda: descriptors(shared) <= before)


def test_the_server_stops_without_waiting_for_clients(
    new_machine: Callable[[], machine.Machine], kubectl_path: Path
) -> None:
    holdfast = new_machine().start()
    number = free_port()
    holdfast.apply(server_pod("server", number))
    holdfast.wait_for_phase("pod", "server", "Running")
    eventually(lambda: "listening" in holdfast.kubectl("logs", "server"))
    with forwarding(holdfast, kubectl_path, number) as forward, forward.connect("hold"):
        eventually(lambda: "began hold" in holdfast.kubectl("logs", "server"))
        assert holdfast.stop() == 0
        # Older ones say so and end with 0.
        assert forward.process.wait(20) in (0, 1)
    assert "lost connection to pod" in forward.said
    assert "Traceback" not in holdfast.log.read_text()
    holdfast.start()
    holdfast.kubectl("delete", "pod", "server")


def test_a_pod_that_does_not_run_is_refused_in_kubernetes_words(shared: machine.Machine) -> None:
    done = server_pod("done", 1)
    done["spec"]["containers"][0]["command"] = ["true"]
    done["spec"]["restartPolicy"] = "Never"
    shared.apply(done)
    shared.wait_for_phase("pod", "done", "Succeeded")
    refused = shared.kubectl("port-forward", "pod/done", ":80", check=False)
    assert "pod is not running. Current status=Succeeded" in refused
    access = kubeconfig.read(shared.kubeconfig)
    context = ssl.create_default_context(cadata=access.authority.decode())
    address = urlsplit(shared.url)
    for headers, code, words in (
        ({"Connection": "Upgrade", "Upgrade": "SPDY/3.1"}, 500, b'pod not found (\\"done_default'),
        ({}, 500, b"pod not found"),
        ({"Authorization": ""}, 403, b"cannot"),
    ):
        assert address.hostname
        client = http.client.HTTPSConnection(address.hostname, address.port, context=context)
        named = {"Authorization": f"Bearer {access.token}", **headers}
        client.request("POST", "/api/v1/namespaces/default/pods/done/portforward", headers=named)
        answer = client.getresponse()
        assert answer.status == code
        assert words in answer.read()
        client.close()
    shared.kubectl("delete", "pod", "done")
