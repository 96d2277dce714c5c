"""The forge for Pods: a test has it in its own process, which Pods need not reach.

A Pod takes their requests and hands them over the stream of a ``kubectl exec``, wherever the cluster is.
"""

from __future__ import annotations

import json
import subprocess
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from tests.fakes.forge import API, read_request

from e2e.suite.manifests import program, python_pod

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fakes.forge import Forge

    from e2e.suite.kube import Kube

NAME: Final = "forge"


@contextmanager
def serving(kube: Kube, namespace: str, forge: Forge) -> Iterator[str]:
    """Have a forge in a namespace while the block runs; yields where its API is."""
    kube.apply(python_pod(NAME, namespace, image=kube.operator_image(), runs="sleeper"))
    kube.run("wait", "-n", namespace, "--for=condition=Ready", f"pod/{NAME}", "--timeout=60s")
    pod = kube.get("pod", NAME, namespace)
    assert pod is not None
    words = ("exec", "-i", "-n", namespace, NAME, "--", "python3", "-u", "-c", program("relay"))
    with kube.start(*words, stdin=subprocess.PIPE, output=subprocess.PIPE) as relay:
        thread = threading.Thread(target=_answer, args=(relay, forge), name="relay", daemon=True)
        thread.start()
        try:
            yield f"http://{pod['status']['podIP']}:8080{API}"
        finally:
            relay.terminate()
            thread.join()
    kube.run("delete", "-n", namespace, f"pod/{NAME}", "--wait=false")


def _answer(relay: subprocess.Popen[str], forge: Forge) -> None:
    assert relay.stdin is not None
    for line in relay.stdout or ():
        method, target, headers, body = json.loads(line)
        answer = forge.answer(read_request(method, target, headers, body.encode()))
        print(json.dumps([answer.status, dict(answer.headers), answer.body.decode()]), file=relay.stdin, flush=True)
