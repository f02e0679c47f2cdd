"""A proxy between Holdfast and a vCenter that fails calls by name.

A rule waits for a SOAP method and then delays it, answers it with a status or a fault, or
cuts the connection: before vCenter has seen the call, or after, when the work is done and
only the answer is lost. A rule is used up by as many calls as it says.
"""

from __future__ import annotations

import http.client
import re
import ssl
import threading
import time
from collections import Counter
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal

_METHOD = re.compile(rb"<(?:\w+:)?Body[^>]*>\s*<(?:\w+:)?(\w+)")
_FAULT = """<?xml version="1.0" encoding="UTF-8"?>
<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"
 xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body><soapenv:Fault>
<faultcode>ServerFaultCode</faultcode><faultstring>injected</faultstring>
<detail><{0}Fault xmlns="urn:vim25" xsi:type="{0}"/></detail>
</soapenv:Fault></soapenv:Body></soapenv:Envelope>"""


_ANSWER = """<?xml version="1.0" encoding="UTF-8"?>
<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"
 xmlns:xsd="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
<soapenv:Body><{0}Response xmlns="{2}">{1}</{0}Response></soapenv:Body></soapenv:Envelope>"""
_FAILED = """<returnval><objects><obj type="Task">{0}</obj>
<propSet><name>info.state</name><val xsi:type="TaskInfoState">error</val></propSet>
<propSet><name>info.error</name><val xsi:type="LocalizedMethodFault"><fault xsi:type="{1}"/>
<localizedMessage>injected</localizedMessage></val></propSet></objects></returnval>"""
_TASK = re.compile(rb">(failing-(\w+)-\d+)<")


@dataclass(slots=True)
class Rule:
    """What happens to the next `times` calls of `method`.

    `kind` is what: "delay" by `seconds`, "status" with `code`, "fault" named `name`, "task" for
    a task that is taken on and then fails with that fault, "reset" before the call is passed on,
    "lost" after it was answered; "answer" with `text` in the namespace `space` instead.
    """

    method: str
    kind: Literal["delay", "status", "fault", "task", "reset", "lost", "answer"]
    times: int = 1
    seconds: float = 0.0
    code: int = 503
    name: str = ""
    text: str = ""
    space: str = "urn:vim25"


class FaultProxy:
    """The proxy, listening on `port` with the certificate of the vCenter behind it."""

    def __init__(self, upstream: int, certificate: Path, key: Path) -> None:
        self.upstream = upstream
        self.calls: Counter[str] = Counter()
        self._rules: list[Rule] = []
        self._lock = threading.Lock()
        proxy = self

        class Handler(_Handler):
            owner = proxy

        # Loading the machine's authorities for each call would cost more than the call.
        self.trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.trusting.check_hostname = False
        self.trusting.verify_mode = ssl.CERT_NONE
        self._server = _Server(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )
        self._thread.start()

    def fail(self, *rules: Rule) -> None:
        """Add rules to those that wait."""
        with self._lock:
            self._rules += rules

    def heal(self) -> None:
        """Drop all rules."""
        with self._lock:
            self._rules.clear()

    def left(self) -> int:
        """How many failures are still to come."""
        with self._lock:
            return sum(rule.times for rule in self._rules)

    def take(self, method: str) -> Rule | None:
        """Return what is to happen to a call, and count it."""
        with self._lock:
            self.calls[method] += 1
            for rule in self._rules:
                if rule.times > 0 and rule.method in (method, "*"):
                    rule.times -= 1
                    return rule
        return None

    def stop(self) -> None:
        """Close the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: cut connections are what this is for."""


class _Handler(BaseHTTPRequestHandler):
    owner: FaultProxy
    protocol_version = "HTTP/1.1"
    # Head and body are written apart, and the second would wait for an acknowledgement.
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self._upstream = http.client.HTTPSConnection(
            "127.0.0.1", self.owner.upstream, context=self.owner.trusting, timeout=60
        )

    def finish(self) -> None:
        self._upstream.close()
        super().finish()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        match = _METHOD.search(body)
        method = match[1].decode() if match else f"{self.command} {self.path.split('?')[0]}"
        rule = self.owner.take(method)
        if rule is not None and rule.kind == "delay":
            time.sleep(rule.seconds)
        elif rule is not None and rule.kind == "reset":
            self._cut()
            return
        elif rule is not None and rule.kind == "status":
            self._answer(rule.code, [], b"")
            return
        elif rule is not None and rule.kind == "fault":
            text = _FAULT.format(rule.name).encode()
            self._answer(500, [("Content-Type", "text/xml")], text)
            return
        elif rule is not None and rule.kind == "task":
            task = f"failing-{rule.name}-{self.owner.calls[method]}"
            self._tell(method, f'<returnval type="Task">{task}</returnval>')
            return
        elif rule is not None and rule.kind == "answer":
            self._tell(method, rule.text, rule.space)
            return
        if asked := _TASK.search(body):
            # Nobody else's task is read with it: only one is under way in these tests.
            self._tell(method, _FAILED.format(asked[1].decode(), asked[2].decode()))
            return
        status, headers, content = self._forward(body)
        if rule is not None and rule.kind == "lost":
            self._cut()
            return
        self._answer(status, headers, content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        dropped = ("host", "connection", "accept-encoding")
        headers = {k: v for k, v in self.headers.items() if k.lower() not in dropped}
        self._upstream.request(self.command, self.path, body or None, headers)
        answer = self._upstream.getresponse()
        content = answer.read()
        kept = ("content-length", "transfer-encoding", "connection")
        return (
            answer.status,
            [(k, v) for k, v in answer.getheaders() if k.lower() not in kept],
            content,
        )

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response(status)
        for key, value in headers:
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _tell(self, method: str, content: str, space: str = "urn:vim25") -> None:
        text = _ANSWER.format(method, content, space)
        self._answer(200, [("Content-Type", "text/xml")], text.encode())

    def _cut(self) -> None:
        self.close_connection = True
        self.connection.close()
