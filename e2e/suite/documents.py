"""TerminusDB as an app meets it: calls of its HTTP API, with the login of a binding."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from e2e.suite.manifests import program, python_pod

if TYPE_CHECKING:
    from e2e.suite.kube import Kube

CLIENT = "client"
Call = tuple[str, str, Any]
"""A method, a path under ``/api``, and a body."""


def make_client(kube: Kube, namespace: str) -> None:
    """Have a Pod in a namespace from which calls are made; it may take a while."""
    kube.apply(python_pod(CLIENT, namespace, image=kube.operator_image(), runs="sleeper"))


def asked(kube: Kube, namespace: str, binding: dict[str, str], *calls: Call) -> list[dict[str, Any]]:
    """Make calls with the login of a binding, from a Pod of its namespace; return status and content of each."""
    words = ("exec", "-i", "-n", namespace, CLIENT, "--", "python3", "-c", program("documents"))
    answers: list[dict[str, Any]] = json.loads(kube.run(*words, stdin=json.dumps({"binding": binding, "calls": calls})))
    return answers
