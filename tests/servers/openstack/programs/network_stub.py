"""network_stub.py PORT: answers Nova's questions to Neutron and Glance with empty lists.

Servers boot without a network and from a volume, so there is nothing to tell.
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Versions, empty lists, and nothing else."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        parts = self.path.split("?")[0].rstrip("/").split("/")
        if len(parts) < 3:
            link = {"rel": "self", "href": f"http://{self.headers.get('Host')}/v2.0/"}
            self._answer(200, {"versions": [{"id": "v2.0", "status": "CURRENT", "links": [link]}]})
        elif len(parts) == 3:
            self._answer(200, {parts[2].replace("-", "_"): []})
        else:
            self._answer(404, {"NeutronError": {"type": "NotFound", "message": self.path}})

    def do_POST(self):
        self._answer(501, {"NeutronError": {"type": "NotImplemented", "message": self.path}})

    do_PUT = do_DELETE = do_POST

    def _answer(self, code, body):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        encoded = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    def log_message(self, *args):
        pass


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
