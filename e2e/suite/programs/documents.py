"""Calls a TerminusDB's HTTP API as an app does: the values of a binding and the calls, each as method, path and body,
are JSON on standard input. Where the binding has an authority, the server must prove by it and by its name who it is.
Prints the status and content of each answer as JSON.
"""

from __future__ import annotations

import base64
import json
import socket
import ssl
import sys
import time
import urllib.error
import urllib.request
from typing import Any


def call(binding: dict[str, str], method: str, path: str, body: Any) -> dict[str, Any]:
    """Return the status and content of one answer."""
    login = base64.b64encode(f"{binding['username']}:{binding['password']}".encode()).decode()
    headers = {"Authorization": f"Basic {login}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    ca = binding.get("ca.crt")
    url = f"{'http' if ca is None else 'https'}://{binding['host']}:{binding['port']}/api/{path}"
    request = urllib.request.Request(url, data=data, headers=headers, method=method)
    await_name(binding["host"])
    trust = None if ca is None else ssl.create_default_context(cadata=ca)
    try:
        with urllib.request.urlopen(request, timeout=30, context=trust) as answer:
            return {"status": answer.status, "content": json.loads(answer.read() or b"null")}
    except urllib.error.HTTPError as refusal:
        return {"status": refusal.code, "content": None}


def await_name(host: str) -> None:
    """Wait until the cluster's DNS has heard of a Service that is new, as apps do that are started with it."""
    for _ in range(60):
        try:
            socket.getaddrinfo(host, None)
        except socket.gaierror:
            time.sleep(1)
        else:
            return


asked = json.load(sys.stdin)
print(json.dumps([call(asked["binding"], *entry) for entry in asked["calls"]]))
