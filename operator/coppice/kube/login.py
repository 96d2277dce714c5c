"""Finds the API server and the credentials for it: the same for the operator and for the commands of people.

KUBECONFIG, if it is set; else the service account of the Pod; else ``~/.kube/config``. A Pod's token rotates: the
client reads the file anew every minute.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kubernetes.aio import config as kubernetes_config
from kubernetes.aio.client import Configuration

if TYPE_CHECKING:
    from collections.abc import Mapping

TOKEN_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
DEFAULT_KUBECONFIG: Final = Path.home() / ".kube" / "config"
DEFAULT_NAMESPACE: Final = "default"


class LoginError(Exception):
    """No usable credentials; the message says what was tried."""


@dataclass(frozen=True, slots=True)
class Login:
    """How to reach the API server, and the namespace that is meant where none is named."""

    configuration: Configuration
    namespace: str


async def load_configuration(environ: Mapping[str, str] | None = None) -> Configuration:
    """Return how to reach the API server; raises LoginError."""
    return (await load_login(environ)).configuration


async def load_login(environ: Mapping[str, str] | None = None, *, context: str | None = None) -> Login:
    """Return how to reach the API server; raises LoginError. A ``context`` is one of a kubeconfig, never a Pod's."""
    variables = os.environ if environ is None else environ
    configuration = Configuration()
    try:
        if not variables.get("KUBECONFIG") and context is None and TOKEN_FILE.exists():
            kubernetes_config.load_incluster_config(client_configuration=configuration)
            namespace = TOKEN_FILE.with_name("namespace").read_text(encoding="utf-8").strip()
        else:
            path = variables.get("KUBECONFIG") or str(DEFAULT_KUBECONFIG)
            loader = await kubernetes_config.load_kube_config(
                config_file=path, context=context, client_configuration=configuration, persist_config=False
            )
            namespace = loader.current_context["context"].get("namespace")
    except (kubernetes_config.ConfigException, OSError) as error:
        raise LoginError(f"no service account and no usable kubeconfig (set KUBECONFIG): {error}") from error
    return Login(configuration, namespace or DEFAULT_NAMESPACE)
