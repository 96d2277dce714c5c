"""Prints what is asked of it over HTTP, each request as a line of JSON, and answers with the line that it then reads.

So a server outside of the cluster, which no Pod reaches, can be had in it: over the stream of a ``kubectl exec``.
"""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TURN = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    """Waits for its turn: there is one input."""

    def serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        with TURN:
            print(json.dumps([self.command, self.path, dict(self.headers.items()), body]), flush=True)
            status, headers, content = json.loads(sys.stdin.readline())
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content.encode())))
        self.end_headers()
        self.wfile.write(content.encode())

    do_GET = do_POST = do_PATCH = serve  # noqa: N815 - the names are the base class's

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Say nothing: its output is for requests."""


ThreadingHTTPServer(("", 8080), Handler).serve_forever()
