"""Probes and hooks over the network: servers in real sandboxes, asked by a real `holdfast up`."""

from __future__ import annotations

import contextlib
import http.server
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

import machine
from machine import eventually

pytestmark = pytest.mark.root

Object = dict[str, Any]
FAST = {"periodSeconds": 1, "failureThreshold": 1}


@pytest.fixture
def port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


def pod(name: str, script: str, **fields: Any) -> Object:
    """A pod with one container `c` that runs a shell script."""
    container = {"name": "c", "image": "busybox", "command": ["sh", "-c", script], **fields}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 3, "containers": [container]},
    }


def serving(port: int) -> str:
    """A web server of what is in /tmp/www, whose process number is in /tmp/pid."""
    server = f"python3 -m http.server --bind 127.0.0.1 -d /tmp/www {port}"
    return f"mkdir -p /tmp/www; {server} & echo $! >/tmp/pid; sleep infinity"


def inside(holdfast: machine.Machine, name: str, script: str) -> str:
    return holdfast.kubectl("exec", name, "--", "sh", "-c", script)


def is_ready(holdfast: machine.Machine, name: str, ready: bool) -> bool:
    obj = holdfast.get("pod", name)
    return obj is not None and obj["status"]["containerStatuses"][0]["ready"] is ready


def restarts(holdfast: machine.Machine, name: str) -> int:
    obj = holdfast.get("pod", name)
    assert obj is not None
    count: int = obj["status"]["containerStatuses"][0]["restartCount"]
    return count


def said(holdfast: machine.Machine, name: str, text: str) -> list[tuple[str, str, str]]:
    """The events about a pod that contain a text."""
    return [event for event in holdfast.events(name) if text in event[2]]


def delete(holdfast: machine.Machine, name: str) -> None:
    holdfast.kubectl("delete", "pod", name, "--grace-period=1")


def test_readiness_follows_the_server(shared: machine.Machine, port: int) -> None:
    probe = {"httpGet": {"path": "/ok", "port": "web"}, **FAST}
    ports = [{"name": "web", "containerPort": port}]
    shared.apply(pod("web-ready", serving(port), ports=ports, readinessProbe=probe))
    shared.wait_for_phase("pod", "web-ready", "Running")
    missing = "Readiness probe failed: HTTP probe failed with statuscode: 404"
    eventually(lambda: said(shared, "web-ready", missing))
    assert is_ready(shared, "web-ready", False)
    inside(shared, "web-ready", "touch /tmp/www/ok")
    eventually(lambda: is_ready(shared, "web-ready", True))
    inside(shared, "web-ready", "kill $(cat /tmp/pid)")
    eventually(lambda: is_ready(shared, "web-ready", False))
    refused = (
        f'Readiness probe failed: Get "http://127.0.0.1:{port}/ok": '
        f"dial tcp 127.0.0.1:{port}: connect: connection refused"
    )
    (event,) = eventually(lambda: said(shared, "web-ready", refused))
    assert event == ("Warning", "Unhealthy", refused)
    assert restarts(shared, "web-ready") == 0
    delete(shared, "web-ready")


def test_a_container_whose_server_died_is_restarted(shared: machine.Machine, port: int) -> None:
    startup = {"tcpSocket": {"port": port}, "periodSeconds": 1, "failureThreshold": 30}
    alive = {"httpGet": {"path": "/", "port": port}, **FAST}
    shared.apply(pod("web-live", serving(port), startupProbe=startup, livenessProbe=alive))
    shared.wait_for_phase("pod", "web-live", "Running")

    def started() -> bool:
        obj = shared.get("pod", "web-live")
        return obj is not None and obj["status"]["containerStatuses"][0]["started"]

    eventually(started)
    assert restarts(shared, "web-live") == 0
    inside(shared, "web-live", "kill $(cat /tmp/pid)")
    eventually(lambda: restarts(shared, "web-live") == 1)
    assert said(shared, "web-live", "Liveness probe failed: Get ")
    killed = "Container c failed liveness probe, will be restarted"
    eventually(lambda: ("Normal", "Killing", killed) in shared.events("web-live"))
    eventually(started)
    delete(shared, "web-live")


def test_a_port_that_is_not_there_is_told_and_kills_nothing(shared: machine.Machine) -> None:
    probe = {"tcpSocket": {"port": "nowhere"}, **FAST}
    shared.apply(pod("no-port", "sleep infinity", livenessProbe=probe, readinessProbe=probe))
    shared.wait_for_phase("pod", "no-port", "Running")
    text = 'probe errored: strconv.Atoi: parsing "nowhere": invalid syntax'
    eventually(lambda: len(said(shared, "no-port", text)) == 2)
    assert is_ready(shared, "no-port", False) and restarts(shared, "no-port") == 0
    delete(shared, "no-port")


@contextlib.contextmanager
def listening() -> Iterator[tuple[int, list[tuple[str, str | None]]]]:
    """A web server that refuses everything: its port, and paths and agents of who asked."""
    asked: list[tuple[str, str | None]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers.get("User-Agent")))
            self.send_error(503)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1], asked
        finally:
            server.shutdown()
            thread.join()


def test_hooks_ask_over_http_and_take_any_answer(shared: machine.Machine) -> None:
    with listening() as (port, asked):
        lifecycle = {
            "postStart": {"httpGet": {"path": "/began?x=1", "port": port}},
            "preStop": {"httpGet": {"path": "/ends", "port": port, "host": "localhost"}},
        }
        shared.apply(pod("asks", "sleep infinity", lifecycle=lifecycle))
        shared.wait_for_phase("pod", "asks", "Running")
        eventually(lambda: asked)
        shared.kubectl("delete", "pod", "asks")
        agent = "kube-lifecycle/1.32"
        assert asked == [("/began?x=1", agent), ("/ends", agent)]
    assert not said(shared, "asks", "Hook failed")


def test_a_hook_over_tls_is_repeated_without(shared: machine.Machine) -> None:
    with listening() as (port, asked):
        hook = {"httpGet": {"path": "/plain", "port": port, "scheme": "HTTPS"}}
        shared.apply(pod("no-tls", "sleep infinity", lifecycle={"postStart": hook}))
        text = f"request to HTTPS lifecycle hook 127.0.0.1:{port} got HTTP response"
        (event,) = eventually(lambda: said(shared, "no-tls", text))
        assert event[:2] == ("Warning", "LifecycleHTTPFallback") and len(asked) == 1
    assert restarts(shared, "no-tls") == 0
    delete(shared, "no-tls")


def test_a_hook_of_type_tcp_socket_fails_as_it_always_did(
    shared: machine.Machine,
) -> None:
    hook = {"tcpSocket": {"port": 1}}
    shared.apply(pod("tcp-hook", "sleep infinity", lifecycle={"postStart": hook}))
    eventually(lambda: said(shared, "tcp-hook", "PostStartHook failed"))
    delete(shared, "tcp-hook")


def test_the_grpc_health_service_makes_a_container_ready(shared: machine.Machine) -> None:
    answers = {b"": b"\x08\x02"}

    def check(request: bytes, context: grpc.ServicerContext) -> bytes:
        return answers[request]

    server = grpc.server(ThreadPoolExecutor(1))
    handlers = {"Check": grpc.unary_unary_rpc_method_handler(check)}
    service = "grpc.health.v1.Health"
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        probe = {"grpc": {"port": port}, **FAST}
        shared.apply(pod("grpc-ready", "sleep infinity", readinessProbe=probe))
        text = 'Readiness probe failed: service unhealthy (responded with "NOT_SERVING")'
        eventually(lambda: said(shared, "grpc-ready", text))
        assert is_ready(shared, "grpc-ready", False)
        answers[b""] = b"\x08\x01"
        eventually(lambda: is_ready(shared, "grpc-ready", True))
    finally:
        server.stop(None).wait()
    eventually(lambda: is_ready(shared, "grpc-ready", False))
    delete(shared, "grpc-ready")


def test_a_hook_that_nobody_answers_ends_the_container(shared: machine.Machine, port: int) -> None:
    lifecycle = {"postStart": {"httpGet": {"path": "/secret", "port": port}}}
    shared.apply(pod("unheard", "sleep infinity", lifecycle=lifecycle))
    eventually(lambda: said(shared, "unheard", "PostStartHook failed"))
    eventually(lambda: restarts(shared, "unheard") >= 1)
    events = shared.events("unheard")
    assert ("Warning", "FailedPostStartHook", "PostStartHook failed") in events
    assert ("Normal", "Killing", "FailedPostStartHook") in events
    assert not said(shared, "unheard", "secret")
    delete(shared, "unheard")


def test_a_pause_before_the_stop_keeps_the_container(
    shared: machine.Machine, tmp_path: Path
) -> None:
    mark = tmp_path / "ticks"
    made = pod("pauses", "while :; do echo x >>/h/ticks; sleep 0.1; done")
    container = made["spec"]["containers"][0]
    container["lifecycle"] = {"preStop": {"sleep": {"seconds": 1}}}
    container["volumeMounts"] = [{"name": "h", "mountPath": "/h"}]
    made["spec"]["volumes"] = [{"name": "h", "hostPath": {"path": str(tmp_path)}}]
    shared.apply(made)
    eventually(mark.exists)
    before = len(mark.read_text())
    shared.kubectl("delete", "pod", "pauses")
    assert len(mark.read_text()) - before >= 2 * 5
