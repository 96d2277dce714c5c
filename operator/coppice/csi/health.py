"""GET /healthz for the kubelet's liveness probe: the driver asks itself over its own socket.

That way a server without free threads is seen as well as a pool that is gone.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc

from coppice.csi import rpc
from coppice.csi.proto import csi_pb2

_log = logging.getLogger(__name__)
_IDENTITY = csi_pb2.DESCRIPTOR.services_by_name["Identity"]
_TIMEOUT_SECONDS = 5


@contextmanager
def serving(port: int, endpoint: Path) -> Iterator[int]:
    """Answer /healthz on `port` (0: any) for the driver at the socket `endpoint`; gives the port."""
    with grpc.insecure_channel(f"unix://{endpoint}") as channel:
        server = ThreadingHTTPServer(("", port), _handler(channel))
        thread = threading.Thread(target=server.serve_forever, name="health", daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def _handler(channel: grpc.Channel) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/healthz":
                self._answer(HTTPStatus.NOT_FOUND, "only /healthz is here\n")
                return
            try:
                rpc.call(channel, _IDENTITY, "Probe", csi_pb2.ProbeRequest(), timeout=_TIMEOUT_SECONDS)
            except grpc.RpcError as error:
                details = error.details() if isinstance(error, grpc.Call) else str(error)
                self._answer(HTTPStatus.SERVICE_UNAVAILABLE, f"{details}\n")
            else:
                self._answer(HTTPStatus.OK, "ok\n")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
            _log.debug(format, *args)

        def _answer(self, status: HTTPStatus, text: str) -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler
