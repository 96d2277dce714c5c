"""A real Kubernetes API server with its etcd, and nothing else: what it accepts and refuses, no fake can tell.

It needs the binaries ``etcd`` and ``kube-apiserver`` in the directory $COPPICE_ASSETS or on the PATH; without them the tests
that ask for it are skipped and say so. It listens on loopback only and starts in about two seconds.
"""

import contextlib
import http.client
import json
import os
import random
import secrets
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from tests.fakes.required import lacks

HOST = "127.0.0.1"
START_SECONDS = 60
BINARIES = ("etcd", "kube-apiserver")
TYPES = {"PATCH": "application/merge-patch+json", "APPLY": "application/apply-patch+yaml"}
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


class NotStartedError(Exception):
    """A server ended, or was not ready in time."""


@dataclass(frozen=True)
class Reply:
    """What the API server answered."""

    status: int
    body: dict[str, Any]

    @property
    def ok(self) -> bool:
        return self.status < 300

    @property
    def causes(self) -> list[dict[str, str]]:
        """Why an object was refused: reason, message and field of each cause."""
        return self.body.get("details", {}).get("causes", [])


@dataclass(frozen=True)
class ApiServer:
    """A running API server and how to reach it as a cluster administrator."""

    port: int
    token: str
    ca_file: Path

    @property
    def url(self) -> str:
        return f"https://{HOST}:{self.port}"

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        accept: str = "application/json",
        warn: bool = False,
        user: str | None = None,
        groups: Sequence[str] = (),
    ) -> Reply:
        """Send one request; the method APPLY is a PATCH by server-side apply. ``warn`` adds the warnings to the body.

        With ``user`` it is sent as that user, who is in these groups and in those that every user is in.
        """
        connection = self._connection()
        headers = {"Authorization": f"Bearer {self.token}", "Accept": accept}
        headers["Content-Type"] = TYPES.get(method, "application/json")
        with contextlib.closing(connection):
            wire_method = "PATCH" if method == "APPLY" else method
            connection.putrequest(wire_method, path)
            text = b"" if body is None else json.dumps(body).encode()
            for name, value in [*headers.items(), ("Content-Length", str(len(text))), *_impersonation(user, groups)]:
                connection.putheader(name, value)
            connection.endheaders(text)
            response = connection.getresponse()
            read = response.read()
            answer = json.loads(read) if read.startswith(b"{") else {"text": read.decode()}
            if warn:
                answer["warnings"] = response.headers.get_all("Warning") or []
            return Reply(response.status, answer)

    def install_crds(self, manifests: Mapping[str, Mapping[str, Any]]) -> None:
        """Create definitions and wait until the server serves them, watches too."""
        for manifest in manifests.values():
            reply = self.request("POST", CRDS, manifest)
            if not reply.ok:
                raise AssertionError(json.dumps(reply.body, indent=1))
        for manifest in manifests.values():
            name = manifest["metadata"]["name"]
            _wait(lambda name=name: self._established(name), name)
            _wait(lambda manifest=manifest: self._watched(manifest), f"a watch of {name}")

    def _established(self, name: str) -> bool:
        status = self.request("GET", f"{CRDS}/{name}").body.get("status") or {}
        # A definition just made has null in the place of its conditions.
        conditions = status.get("conditions") or []
        return any(entry["type"] == "Established" and entry["status"] == "True" for entry in conditions)

    def _watched(self, manifest: Mapping[str, Any]) -> bool:
        """Whether a watch is answered: for a moment after a kind is served, it is refused with 429, as `initializing`."""
        kind = manifest["spec"]
        path = f"/apis/{kind['group']}/{kind['versions'][0]['name']}/{kind['names']['plural']}?watch=true"
        with contextlib.closing(self._connection()) as connection:
            connection.request("GET", path, headers={"Authorization": f"Bearer {self.token}"})
            # The events would go on: what counts is that they begin.
            return connection.getresponse().status == http.HTTPStatus.OK

    def _connection(self) -> http.client.HTTPSConnection:
        context = ssl.create_default_context(cafile=str(self.ca_file))
        return http.client.HTTPSConnection(HOST, self.port, context=context, timeout=30)

    def kubeconfig(self) -> str:
        """Return a kubeconfig for clients that want a file."""
        cluster = {"server": self.url, "certificate-authority": str(self.ca_file)}
        return yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "test",
                "clusters": [{"name": "test", "cluster": cluster}],
                "users": [{"name": "test", "user": {"token": self.token}}],
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": "default"}}],
            }
        )


def find_binaries() -> dict[str, str] | None:
    """Return the paths of the binaries, or None if one is missing."""
    places = os.pathsep.join(filter(None, (os.environ.get("COPPICE_ASSETS"), os.environ.get("PATH"))))
    found = {name: shutil.which(name, path=places) for name in BINARIES}
    return {name: path for name, path in found.items() if path} if all(found.values()) else None


@contextlib.contextmanager
def run_api_server(
    binaries: Mapping[str, str], directory: Path, *flags: str, authorization: str = "AlwaysAllow"
) -> Iterator[ApiServer]:
    """Run etcd and kube-apiserver below ``directory`` until the block ends; ``flags`` are added to the API server's."""
    etcd_url, peer_url, port = f"http://{HOST}:{_free_port()}", f"http://{HOST}:{_free_port()}", _free_port()
    server = ApiServer(port=port, token=secrets.token_hex(16), ca_file=directory / "certs" / "apiserver.crt")
    (directory / "tokens.csv").write_text(f'{server.token},admin,admin,"system:masters"\n')
    _write_key(directory / "service-accounts.key")
    etcd = [
        binaries["etcd"],
        f"--data-dir={directory / 'etcd'}",
        f"--listen-client-urls={etcd_url}",
        f"--advertise-client-urls={etcd_url}",
        f"--listen-peer-urls={peer_url}",
        f"--initial-advertise-peer-urls={peer_url}",
        f"--initial-cluster=default={peer_url}",
        "--unsafe-no-fsync",
        "--log-level=error",
    ]
    apiserver = [
        binaries["kube-apiserver"],
        f"--etcd-servers={etcd_url}",
        f"--bind-address={HOST}",
        f"--advertise-address={HOST}",
        f"--secure-port={port}",
        "--endpoint-reconciler-type=none",  # the default refuses loopback as an endpoint
        f"--cert-dir={directory / 'certs'}",
        f"--token-auth-file={directory / 'tokens.csv'}",
        f"--authorization-mode={authorization}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={directory / 'service-accounts.key'}",
        f"--service-account-signing-key-file={directory / 'service-accounts.key'}",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--disable-admission-plugins=ServiceAccount",  # there is no controller that makes the accounts
        *flags,
    ]
    with _process(etcd, directory / "etcd.log"), _process(apiserver, directory / "apiserver.log") as process:
        _wait(lambda: _ready(server), "kube-apiserver", process, directory / "apiserver.log")
        yield server


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An API server for the whole run; a conftest.py makes it known by importing it."""
    binaries = find_binaries()
    if binaries is None:
        lacks(f"no {' and '.join(BINARIES)} in $COPPICE_ASSETS or on the PATH")
    with run_api_server(binaries, tmp_path_factory.mktemp("apiserver")) as server:
        yield server


def _impersonation(user: str | None, groups: Sequence[str]) -> list[tuple[str, str]]:
    return [("Impersonate-User", user), *(("Impersonate-Group", group) for group in groups)] if user else []


def _ready(server: ApiServer) -> bool:
    try:
        return server.ca_file.exists() and server.request("GET", "/readyz").ok
    except OSError:
        return False


def _free_port() -> int:
    """Return a free port below those that the kernel gives to connections, one of which might come between."""
    while True:
        port = random.randrange(10000, 32000)
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind((HOST, port))
            return port


def _write_key(path: Path) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(key.private_bytes(*form))


@contextlib.contextmanager
def _process(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(START_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait(done, what: str, process: subprocess.Popen[bytes] | None = None, log: Path | None = None) -> None:
    """Ask again until ``done``, the process has ended, or the time is up."""
    deadline = time.monotonic() + START_SECONDS
    while not done():
        ended = process is not None and process.poll() is not None
        if ended or time.monotonic() > deadline:
            tail = log.read_text(errors="replace")[-2000:] if log else ""
            raise NotStartedError(f"{what} {'ended' if ended else 'was not ready in time'}\n{tail}")
        time.sleep(0.05)
