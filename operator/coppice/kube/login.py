"""Finds the API server and the credentials for it: the same for our requests and for kopf's watches.

KUBECONFIG, if it is set; else the service account of the Pod; else ``~/.kube/config``. A Pod's token rotates: the
client reads the file anew every minute, and kopf asks for a login again when its token is refused.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import kopf
from kubernetes.aio import config as kubernetes_config
from kubernetes.aio.client import Configuration

if TYPE_CHECKING:
    from collections.abc import Mapping

TOKEN_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
DEFAULT_KUBECONFIG: Final = Path.home() / ".kube" / "config"


class LoginError(Exception):
    """No usable credentials; the message says what was tried."""


async def load_configuration(environ: Mapping[str, str] | None = None) -> Configuration:
    """Return how to reach the API server; raises LoginError."""
    variables = os.environ if environ is None else environ
    configuration = Configuration()
    try:
        if not variables.get("KUBECONFIG") and TOKEN_FILE.exists():
            kubernetes_config.load_incluster_config(client_configuration=configuration)
        else:
            path = variables.get("KUBECONFIG") or str(DEFAULT_KUBECONFIG)
            await kubernetes_config.load_kube_config(
                config_file=path, client_configuration=configuration, persist_config=False
            )
    except (kubernetes_config.ConfigException, OSError) as error:
        raise LoginError(f"no service account and no usable kubeconfig (set KUBECONFIG): {error}") from error
    return configuration


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
