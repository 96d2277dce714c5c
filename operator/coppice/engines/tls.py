"""TLS for a server that has none: a program beside it takes the connections and hands them on.

It is stunnel (https://www.stunnel.org/), which knows nothing of what is said. The server still listens on the Pod's
address: what keeps others from it there is that no Service leads to that port and no NetworkPolicy lets anybody to it.
"""

from __future__ import annotations

from typing import Final

from coppice.engines.base import RUN_PATH, Workload
from coppice.engines.shell import script

CERTIFICATE_PATH: Final = "/coppice/certificate"
"""Where the certificate is mounted read-only: ``tls.crt``, ``tls.key``. It may change there at any time."""


def proxy(*, port: int, server_port: int) -> Workload:
    """Return what runs beside a server, in a container of its own with a ``RUN_PATH`` of its own."""
    environment = {
        "COPPICE_CERTIFICATE": CERTIFICATE_PATH,
        "COPPICE_RUN": RUN_PATH,
        "COPPICE_HOST": "0.0.0.0",  # noqa: S104 - in a Pod
        "COPPICE_PORT": str(port),
        "COPPICE_SERVER_PORT": str(server_port),
    }
    return Workload(script=script("tls"), environment=environment, port=port)
