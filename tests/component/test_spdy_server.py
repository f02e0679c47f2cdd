"""SPDY as older and stranger clients speak it, and what it must leave alone."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import struct
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
import websockets
import websockets.sync.client

import machine
from holdfast.apiserver.spdy import frames
from holdfast.server import kubeconfig
from machine import eventually

pytestmark = pytest.mark.root

V4, V3, V2, V1 = "v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"
POD = "/api/v1/namespaces/default/pods/spoken"


@pytest.fixture(scope="module", autouse=True)
def pod(shared: machine.Machine) -> None:
    """A running pod `spoken`."""
    container = {"name": "c", "image": "busybox", "command": ["sleep", "infinity"]}
    spec = {"terminationGracePeriodSeconds": 1, "containers": [container]}
    shared.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "spoken"}, "spec": spec})
    shared.wait_for_phase("pod", "spoken", "Running")


class Client:
    """One connection, with the frames of a client that need not be well-behaved."""

    def __init__(self, holdfast: machine.Machine) -> None:
        access = kubeconfig.read(holdfast.kubeconfig)
        address = urlsplit(holdfast.url)
        context = ssl.create_default_context(cadata=access.authority.decode())
        plain = socket.create_connection((address.hostname, address.port), 20)
        self.socket = context.wrap_socket(plain, server_hostname=address.hostname)
        self.token = access.token
        self.encoder = frames.Encoder()
        self._decoder = frames.Decoder()
        self._waiting: list[frames.Frame] = []

    def upgrade(self, path: str, *protocols: str, method: str = "POST") -> tuple[int, bytes]:
        """Ask for SPDY; the status and the head of the answer."""
        lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {self.token}"]
        lines += ["Connection: Upgrade", "Upgrade: SPDY/3.1", "Content-Length: 0"]
        lines += [f"X-Stream-Protocol-Version: {each}" for each in protocols]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())
        head = b""
        while b"\r\n\r\n" not in head:
            # By single bytes, because frames may follow.
            head += self.socket.recv(1)
        return int(head.split()[1]), head

    def execute(self, command: str, protocol: str, names: str = "error stdout stderr") -> None:
        """Start a shell command and open streams with odd numbers in the order of the names."""
        query = [("command", "sh"), ("command", "-c"), ("command", command)]
        query += [(name, "true") for name in ("stdin", "stdout", "stderr") if name in names]
        code, head = self.upgrade(f"{POD}/exec?{urlencode(query)}", *[protocol] * bool(protocol))
        assert code == 101
        assert (f"x-stream-protocol-version: {protocol}\r\n".encode() in head) == bool(protocol)
        for index, name in enumerate(names.split()):
            self.send(frames.SynStream(2 * index + 1, {"streamtype": name}))

    def send(self, *several: frames.Frame) -> None:
        self.socket.sendall(b"".join(map(self.encoder.encode, several)))

    def frames(self) -> Iterator[frames.Frame]:
        """What comes, until the server closes."""
        while data := self.socket.recv(1 << 16):
            yield from self._decoder.feed(data)

    def heard(self, streams: int) -> Mapping[int, bytes]:
        """What came on each stream until that many were ended."""
        said: dict[int, bytes] = {}
        for frame in self.frames():
            if isinstance(frame, frames.Data):
                said[frame.stream] = said.get(frame.stream, b"") + frame.data
                streams -= frame.fin
                if not streams:
                    break
        return said


@pytest.fixture
def client(shared: machine.Machine) -> Iterator[Client]:
    """A client with a connection of its own."""
    made = Client(shared)
    yield made
    made.socket.close()


def descriptors(holdfast: machine.Machine) -> int:
    return len(list(Path(f"/proc/{holdfast.pid}/fd").iterdir()))


def children(holdfast: machine.Machine) -> set[str]:
    """The pids of its children; those of the test before may still be on their way out."""
    return set(Path(f"/proc/{holdfast.pid}/task/{holdfast.pid}/children").read_text().split())


def ended(holdfast: machine.Machine, before: set[str]) -> bool:
    return children(holdfast) <= before


@pytest.mark.parametrize("protocol", [V3, V2, V1, ""])
def test_before_version_4_the_outcome_is_text(client: Client, protocol: str) -> None:
    client.execute("echo out; echo err >&2; exit 7", protocol)
    said = client.heard(3)
    assert (said[3], said[5]) == (b"out\n", b"err\n")
    assert said[1] == b"command terminated with non-zero exit code: exit status 7"


def test_before_version_4_success_is_silence(client: Client) -> None:
    client.execute("echo out", V2)
    assert client.heard(3)[1] == b""


def test_version_4_tells_a_status_and_the_end_of_the_input_arrives(client: Client) -> None:
    client.execute("cat; exit 3", V4, "error stdin stdout stderr")
    client.send(*(frames.Data(3, bytes([65 + i]) * 70_000) for i in range(10)))
    client.send(frames.Data(3, b"end", fin=True))
    said = client.heard(4)
    assert said[5] == b"".join(bytes([65 + i]) * 70_000 for i in range(10)) + b"end"
    status = json.loads(said[1])
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]


def test_the_first_protocol_of_the_client_that_is_spoken_is_taken(client: Client) -> None:
    path = f"{POD}/exec?command=true&stdout=true"
    code, head = client.upgrade(path, "v9.channel.k8s.io", V2, V4)
    assert code == 101
    assert f"x-stream-protocol-version: {V2}\r\n".encode() in head


@pytest.mark.parametrize(
    ("path", "protocol", "code", "words"),
    [
        ("exec?command=true&stdout=true", "v9", 403, b"client supports [v9], server accepts [v4."),
        ("portforward", "v9", 403, b"server accepts [portforward.k8s.io]"),
        ("exec?stdout=true", V4, 400, b"at least one command"),
        ("exec?command=true", V4, 400, b"at least 1 of stdin"),
        ("attach?stdout=true&container=x", V4, 400, b"container x is not valid"),
        ("log", V4, 200, b""),
    ],
)
def test_what_cannot_be_served_is_answered_as_http(
    client: Client, path: str, protocol: str, code: int, words: bytes
) -> None:
    found, head = client.upgrade(
        f"{POD}/{path}", protocol, method="GET" if path == "log" else "POST"
    )
    assert found == code
    if words:
        length = int(head.lower().split(b"content-length: ")[1].split()[0])
        body = b""
        while len(body) < length:
            body += client.socket.recv(length - len(body))
        assert words in body


@pytest.mark.parametrize("path", ["exec?command=true&stdout=true", "attach", "portforward"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_who_may_only_look_may_not_talk_to_containers(
    shared: machine.Machine, client: Client, path: str, method: str
) -> None:
    tokens = (shared.data_dir / "pki" / "tokens").read_text().splitlines()
    client.token = next(line.split(",")[0] for line in tokens if ",holdfast:view," in line)
    assert client.upgrade(f"{POD}/log", method="GET")[0] == 200
    client.socket.close()
    refused = Client(shared)
    refused.token = client.token
    with refused.socket:
        assert refused.upgrade(f"{POD}/{path}", V4, method=method)[0] == 403


def test_pings_are_answered_and_unknown_streams_refused(client: Client) -> None:
    client.execute("sleep 4322", V4)
    client.send(frames.Ping(7), frames.SynStream(9, {"streamtype": "strange"}))
    client.send(frames.WindowUpdate(1, 100), frames.Settings({4: 100}), frames.Ping(2))
    client.send(frames.Data(9, b"too late"), frames.Reset(9), frames.Ping(9))
    seen: list[frames.Frame] = []
    for frame in client.frames():
        seen.append(frame)
        if frame == frames.Ping(9):
            break
    assert [each for each in seen if isinstance(each, frames.SynReply)] == [
        frames.SynReply(number) for number in (1, 3, 5)
    ]
    assert frames.Ping(7) in seen and frames.Ping(2) not in seen
    assert frames.Reset(9, frames.REFUSED_STREAM) in seen


@pytest.mark.parametrize(
    "nonsense",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack("!II", 1 << 31 | 3 << 16 | 1, 0xFFFFFF),
        frames.Encoder().encode(frames.SynStream(2)),
        frames.Encoder().encode(frames.Data(77, b"for nobody")),
    ],
    ids=["HTTP", "length", "even", "unopened"],
)
def test_a_broken_protocol_ends_the_program_and_the_connection(
    shared: machine.Machine, client: Client, nonsense: bytes
) -> None:
    before = children(shared)
    client.execute("sleep 4323", V4)
    assert not ended(shared, before)
    client.socket.sendall(nonsense)
    seen = list(client.frames())
    assert isinstance(seen[-1], frames.GoAway)
    eventually(lambda: ended(shared, before))


@pytest.mark.parametrize("script", ["sleep 4324", "cat /dev/zero", "exec <&-; sleep 4324"])
@pytest.mark.parametrize("flood", [False, True])
def test_a_client_that_dies_leaves_nothing_behind(
    shared: machine.Machine, script: str, flood: bool
) -> None:
    before, programs = descriptors(shared), children(shared)
    client = Client(shared)
    client.execute(script, V4, "error stdin stdout stderr")
    assert descriptors(shared) > before
    if flood:
        # More than is kept for a program that reads nothing: nobody listens to the client then.
        client.socket.settimeout(2)
        with contextlib.suppress(TimeoutError):
            for _ in range(300):
                client.send(frames.Data(3, bytes(32_768)))
    # Without a word, as when the process is killed; with data unread the kernel resets.
    client.socket.close()
    eventually(lambda: ended(shared, programs), 40)
    eventually(lambda: descriptors(shared) <= before)


def test_a_client_that_never_opens_its_streams_is_let_go_when_it_leaves(
    shared: machine.Machine,
) -> None:
    programs = children(shared)
    client = Client(shared)
    client.execute("sleep 4325", V4, "error stdout")
    assert not ended(shared, programs)
    client.send(frames.GoAway(0))
    eventually(lambda: ended(shared, programs))
    client.socket.close()


def test_requests_watches_and_websockets_go_on_beside_it(
    shared: machine.Machine, client: Client
) -> None:
    client.execute("cat", V4, "error stdin stdout")
    access = kubeconfig.read(shared.kubeconfig)
    context = ssl.create_default_context(cadata=access.authority.decode())
    address = urlsplit(shared.url)
    assert address.hostname
    headers = {"Authorization": f"Bearer {access.token}"}
    plain = http.client.HTTPSConnection(address.hostname, address.port, context=context)
    # An upgrade that nobody here knows is, as HTTP has it, an ordinary request.
    for extra in ({}, {"Connection": "Upgrade", "Upgrade": "h2c"}):
        plain.request("GET", "/api/v1/namespaces/default", headers=headers | extra)
        answer = plain.getresponse()
        body: dict[str, Any] = json.load(answer)
        assert (answer.status, body["kind"]) == (200, "Namespace")
    plain.close()
    watch = http.client.HTTPSConnection(address.hostname, address.port, context=context)
    watch.request("GET", "/api/v1/pods?watch=true", headers=headers)
    assert json.loads(watch.getresponse().readline())["type"] == "ADDED"
    watch.close()
    with websockets.sync.client.connect(
        f"{shared.url.replace('https', 'wss')}{POD}/exec?command=echo&command=hi&stdout=true",
        ssl=context,
        subprotocols=[websockets.Subprotocol("v5.channel.k8s.io")],
        additional_headers=headers,
    ) as socket_:
        assert b"\x01hi\n" in list(socket_)
    client.send(frames.Data(3, b"still here", fin=True))
    assert client.heard(3)[5] == b"still here"
    assert "Traceback" not in shared.log.read_text()


def test_the_server_stops_with_programs_running(
    new_machine: Any,
) -> None:
    holdfast: machine.Machine = new_machine().start()
    container = {"name": "c", "image": "busybox", "command": ["sleep", "infinity"]}
    spec = {"terminationGracePeriodSeconds": 1, "containers": [container]}
    meta = {"name": "spoken"}
    holdfast.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
    holdfast.wait_for_phase("pod", "spoken", "Running")
    client = Client(holdfast)
    client.execute("sleep 4326", V4)
    began = time.monotonic()
    assert holdfast.stop() == 0
    assert time.monotonic() - began < 10
    assert any(isinstance(frame, frames.GoAway) for frame in client.frames())
    client.socket.close()
    assert "Traceback" not in holdfast.log.read_text()
    holdfast.start()
    holdfast.kubectl("delete", "pod", "spoken")
