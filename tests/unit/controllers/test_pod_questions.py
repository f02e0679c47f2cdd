"""What probes ask and what they are told: real servers on this machine's loopback."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc
import pytest

from holdfast.controllers.nodeagent import connections, httpgets, questions
from holdfast.controllers.nodeagent.containerspecs import (
    Container,
    ContainerPort,
    GrpcAction,
    HttpGetAction,
    HttpHeader,
    Probe,
    TcpSocketAction,
)
from holdfast.controllers.nodeagent.questions import Result
from holdfast.kit import process

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
GOOD = Result("success")


async def no_command(command: list[str], seconds: float) -> tuple[int, str]:
    raise AssertionError("no command was to be run")


@contextlib.asynccontextmanager
async def served(answer: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server on a free port, which is given; each connection is closed after its answer."""

    at_work: set[asyncio.Task[None] | None] = set()

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        at_work.add(asyncio.current_task())
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await answer(reader, writer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(once, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        # A connection that was only tried is accepted a moment later.
        await asyncio.sleep(0.01)
        await asyncio.gather(*(task for task in at_work if task is not None))


def answering(*answers: str) -> tuple[list[str], Serve]:
    """What was asked so far, and who gives these answers, the last one for ever."""
    asked: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(answers[min(len(asked), len(answers)) - 1].encode())
        await writer.drain()

    return asked, answer


def status(code: int, *headers: str, body: str = "") -> str:
    return "\r\n".join([f"HTTP/1.1 {code} X", *headers, f"Content-Length: {len(body)}", "", body])


async def ask(action: HttpGetAction, container: Container = Container(), late: int = 1) -> Result:  # noqa: B008
    return await questions.ask(Probe(http_get=action, timeout_seconds=late), container, no_command)


async def test_the_request_is_that_of_a_kubelet() -> None:
    asked, answer = answering(status(200))
    async with served(answer) as port:
        headers = [HttpHeader("x-a", "1"), HttpHeader("X-A", "2"), HttpHeader("Host", "pod.test")]
        action = HttpGetAction(path="healthz?deep=1", port=port, http_headers=headers)
        assert await ask(action) == GOOD
    first, *rest = asked[0].split("\r\n")
    assert first == "GET /healthz?deep=1 HTTP/1.1"
    assert rest[:-2] == [
        *("Host: pod.test", "Connection: close", "X-A: 1", "X-A: 2"),
        *("User-Agent: kube-probe/1.32", "Accept: */*"),
    ]


async def test_agent_and_accept_are_replaced_or_left_out() -> None:
    asked, answer = answering(status(200))
    async with served(answer) as port:
        headers = [HttpHeader("user-agent", "me"), HttpHeader("Accept", "")]
        assert await ask(HttpGetAction(port=port, http_headers=headers)) == GOOD
    assert "User-Agent: me" in asked[0] and "Accept" not in asked[0]
    assert f"Host: 127.0.0.1:{port}" in asked[0] and asked[0].startswith("GET / HTTP")


async def test_a_header_cannot_carry_another_request() -> None:
    asked, answer = answering(status(200))
    async with served(answer) as port:
        bad = HttpHeader("X", "1\r\n\r\nGET /other HTTP/1.1")
        result = await ask(HttpGetAction(port=port, http_headers=[bad]))
        assert result.output.endswith('net/http: invalid header field value for "X"')
        result = await ask(HttpGetAction(port=port, http_headers=[HttpHeader("X: y\r\nZ", "1")]))
        assert result.answer == "failure" and "invalid header field name" in result.output
        assert await ask(HttpGetAction(port=port, path="/a b\r\nX: y")) == GOOD
    assert len(asked) == 1 and "\r\nX: y" not in asked[0]


@pytest.mark.parametrize(
    ("code", "result"),
    [
        (200, GOOD),
        (204, GOOD),
        (304, Result("warning", "Probe terminated redirects, Response body: ")),
        (400, Result("failure", "HTTP probe failed with statuscode: 400")),
        (503, Result("failure", "HTTP probe failed with statuscode: 503")),
    ],
)
async def test_the_code_decides(code: int, result: Result) -> None:
    async with served(answering(f"HTTP/1.1 {code} X\r\n\r\n")[1]) as port:
        assert await ask(HttpGetAction(port=port)) == result


async def test_answers_before_the_final_one_are_passed_over() -> None:
    early = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + status(500)
    async with served(answering(early)[1]) as port:
        assert "statuscode: 500" in (await ask(HttpGetAction(port=port))).output


async def test_redirects_to_the_same_host_are_followed() -> None:
    asked, answer = answering(status(302, "Location: /next?a=b"), status(200))
    async with served(answer) as port:
        headers = [HttpHeader("Host", "pod.test"), HttpHeader("Authorization", "mine")]
        assert await ask(HttpGetAction(port=port, http_headers=headers)) == GOOD
    assert asked[1].startswith("GET /next?a=b ") and "Host: pod.test" in asked[1]
    assert f"Referer: http://127.0.0.1:{port}/\r\n" in asked[1]
    assert "Authorization: mine" in asked[1]


async def test_a_redirect_elsewhere_is_not_followed_and_warns() -> None:
    asked, answer = answering(status(301, "Location: http://elsewhere.test/", body="go there"))
    async with served(answer) as port:
        result = await ask(HttpGetAction(port=port))
    assert result == Result("warning", "Probe terminated redirects, Response body: go there")
    assert result.success and len(asked) == 1


@pytest.mark.parametrize(
    "location",
    [
        *("http://127.0.0.1:abc/", "http://127.0.0.1:99999/", "http://[x/", "//[", "mailto:x"),
        *("http://127.0.0.1:0/", "ftp://127.0.0.1/", "http://user@127.0.0.1:1/", "\xff\x00\x7f"),
    ],
)
async def test_a_redirect_to_nonsense_is_only_a_result(location: str) -> None:
    async with served(answering(status(302, f"Location: {location}"))[1]) as port:
        assert (await ask(HttpGetAction(port=port))).answer in ("failure", "warning")


async def test_odd_hosts_and_ports_are_only_results() -> None:
    for host in ("a" * 300, "..", "\ud800", "x y", "nobody.invalid", "::1"):
        result = await ask(HttpGetAction(port=1, host=host))
        assert result.answer == "failure", host
        probe = Probe(tcp_socket=TcpSocketAction(port=1, host=host))
        assert (await questions.ask(probe, Container(), no_command)).answer == "failure", host
    for port in ("9" * 5000, "-1", "", "٣"):
        assert (await ask(HttpGetAction(port=port))).answer == "unknown", port


async def test_headers_without_end_are_given_up() -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while not writer.is_closing():
            writer.write(b"X: y\r\n" * 9000)
            await writer.drain()
            await asyncio.sleep(0)

    async with served(endless) as port:
        result = await ask(HttpGetAction(port=port), late=30)
    assert result.answer == "failure" and "exceeded 10485760 bytes" in result.output


async def test_ten_redirects_are_enough() -> None:
    asked, answer = answering(status(307, "Location: /again"))
    async with served(answer) as port:
        result = await ask(HttpGetAction(port=port))
        text = f'Get "http://127.0.0.1:{port}/again": stopped after 10 redirects'
    assert result == Result("failure", text) and len(asked) == 10


async def test_a_port_may_have_a_name() -> None:
    async with served(answering(status(200))[1]) as port:
        container = Container(ports=[ContainerPort(name="web", container_port=port)])
        assert await ask(HttpGetAction(port="web"), container) == GOOD
        assert await ask(HttpGetAction(port=str(port)), container) == GOOD
    result = await ask(HttpGetAction(port="nope"), container)
    assert result == Result("unknown", 'strconv.Atoi: parsing "nope": invalid syntax')
    result = await ask(HttpGetAction(port="70000"), container)
    assert result == Result("unknown", "invalid port number: 70000")


async def free_port() -> int:
    async with served(answering("")[1]) as port:
        return port


async def test_nobody_listens() -> None:
    port = await free_port()
    dial = f"dial tcp 127.0.0.1:{port}: connect: connection refused"
    result = await ask(HttpGetAction(path="/x", port=port))
    assert result == Result("failure", f'Get "http://127.0.0.1:{port}/x": {dial}')
    probe = Probe(tcp_socket=TcpSocketAction(port=port))
    assert await questions.ask(probe, Container(), no_command) == Result("failure", dial)


async def test_somebody_listens() -> None:
    async with served(answering("")[1]) as port:
        probe = Probe(tcp_socket=TcpSocketAction(port=port, host="localhost"))
        assert await questions.ask(probe, Container(), no_command) == GOOD


async def test_a_late_answer_is_a_failure_and_a_late_body_is_none() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def dribbling(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx")
        await reader.read()

    async with served(silent) as port:
        result = await ask(HttpGetAction(port=port))
    assert result.answer == "failure"
    assert result.output.endswith(
        "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
    )
    async with served(dribbling) as port:
        result = await ask(HttpGetAction(port=port))
    assert result.answer == "unknown" and result.output.endswith("while reading body)")


async def test_a_large_or_endless_body_is_cut() -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x" * 4096)
            await writer.drain()
            await asyncio.sleep(0)

    async with served(endless) as port:
        request = httpgets.Request(f"http://127.0.0.1:{port}/")
        answer = await httpgets.get(request, 5)
    assert answer.code == 200 and len(answer.body) == httpgets.MOST


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        ("", "EOF"),
        (
            "SSH-2.0-x\r\n",
            'net/http: HTTP/1.x transport connection broken: malformed HTTP response "SSH-2.0-x"',
        ),
    ],
)
async def test_what_is_no_answer_fails(sent: str, text: str) -> None:
    async with served(answering(sent)[1]) as port:
        result = await ask(HttpGetAction(port=port))
    assert result == Result("failure", f'Get "http://127.0.0.1:{port}/": {text}')


async def test_certificates_are_not_looked_at(tmp_path: Path) -> None:
    key, certificate = str(tmp_path / "key"), str(tmp_path / "certificate")
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    argv += ["-nodes", "-keyout", key, "-out", certificate, "-subj", "/CN=somebody-else"]
    await process.run(argv)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    asked, answer = answering(status(200))
    async with served(answer, context) as port:
        assert await ask(HttpGetAction(port=port, scheme="HTTPS"), late=5) == GOOD
    assert len(asked) == 1


async def test_a_server_without_tls_is_recognised() -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(status(400).encode())

    async with served(plain) as port:
        result = await ask(HttpGetAction(port=port, scheme="HTTPS"), late=5)
    assert result.output == f'Get "https://127.0.0.1:{port}/": {connections.NOT_TLS}'


@contextlib.asynccontextmanager
async def health(**states: bytes) -> AsyncIterator[int]:
    """A gRPC server with a health service that knows these services."""

    async def check(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        name = request[2:].decode() or "all"
        if name not in states:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return states[name]

    server = grpc.aio.server()
    handlers = {"Check": grpc.unary_unary_rpc_method_handler(check)}
    if states:
        service = "grpc.health.v1.Health"
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


async def ask_grpc(port: int, service: str | None = None) -> Result:
    probe = Probe(grpc=GrpcAction(port=port, service=service), timeout_seconds=2)
    return await questions.ask(probe, Container(), no_command)


async def test_the_health_service_is_asked() -> None:
    async with health(all=b"\x08\x01", sick=b"\x08\x02", odd=b"") as port:
        assert await ask_grpc(port) == GOOD
        for service, said in (("sick", "NOT_SERVING"), ("odd", "UNKNOWN")):
            text = f'service unhealthy (responded with "{said}")'
            assert await ask_grpc(port, service) == Result("failure", text)
        assert await ask_grpc(port, "x") == Result(
            "failure",
            "error: health rpc probe failed: rpc error: code = NotFound desc = unknown service",
        )


async def test_a_server_without_health_service_or_no_server_fails() -> None:
    async with health() as port:
        result = await ask_grpc(port)
        assert "does not implement the grpc health protocol" in result.output
    result = await ask_grpc(await free_port())
    assert result.answer == "failure" and "failed to connect service" in result.output
