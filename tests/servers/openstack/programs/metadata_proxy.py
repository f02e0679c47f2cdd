"""metadata_proxy.py ADDRESS URL SERVER PROJECT: Neutron's metadata agent, for one server.

Nova's metadata service knows a server by signed headers that the agent adds. The secret they
are signed with is read from the environment.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import sys
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

address, url, server, project = sys.argv[1:5]
secret = os.environ["METADATA_SECRET"].encode()
HEADERS = {
    "X-Instance-ID": server,
    "X-Tenant-ID": project,
    "X-Forwarded-For": "127.0.0.1",
    "X-Instance-ID-Signature": hmac.new(secret, server.encode(), hashlib.sha256).hexdigest(),
}


class Handler(BaseHTTPRequestHandler):
    """Passes GET on."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        try:
            answer = urllib.request.urlopen(
                urllib.request.Request(url + self.path, headers=HEADERS)
            )
        except urllib.error.HTTPError as error:
            answer = error
        body = answer.read()
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.headers.get("Content-Type", "text/plain"))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


host, port = address.rsplit(":", 1)
ThreadingHTTPServer((host, int(port)), Handler).serve_forever()
