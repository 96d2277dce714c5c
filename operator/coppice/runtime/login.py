"""The login in kopf's terms: its watches reach the API server as our requests do.

kopf asks for a login again when its token is refused, as a Pod's is that has rotated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import kopf

if TYPE_CHECKING:
    from kubernetes.aio.client import Configuration


async def connection_info(configuration: Configuration) -> kopf.ConnectionInfo:
    """Return the same login in kopf's terms."""
    header = await configuration.get_api_key_with_prefix("BearerToken") or ""
    scheme, _, token = header.strip().rpartition(" ")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        ca_data=configuration.ca_cert_data,
        insecure=not configuration.verify_ssl,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        scheme=scheme or None,
        token=token or None,
        proxy_url=configuration.proxy,
    )
