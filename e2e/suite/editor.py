"""Somebody with a kubeconfig and the `coppice` command: with the role `edit` in one namespace, or anybody by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from e2e.suite.kube import TIMEOUT
from e2e.suite.manifests import PROGRAMS

if TYPE_CHECKING:
    from e2e.suite.change import Person
    from e2e.suite.kube import Kube

NAME = "editor"
COMMAND = (sys.executable, "-m", "coppice")


@dataclass(frozen=True, slots=True)
class Editor:
    """A person with the command; what they may is what Kubernetes' own roles give them."""

    kubeconfig: Path

    @classmethod
    def of(cls, kube: Kube, namespace: str, directory: Path) -> Editor:
        """Let somebody work in a namespace."""
        kube.run("create", "serviceaccount", NAME, "-n", namespace)
        subject = f"--serviceaccount={namespace}:{NAME}"
        kube.run("create", "rolebinding", NAME, "-n", namespace, "--clusterrole=edit", subject)
        token = kube.run("create", "token", NAME, "-n", namespace).strip()
        return cls(_kubeconfig(kube, namespace, {"token": token}, directory))

    @classmethod
    def named(cls, kube: Kube, person: Person, namespace: str, directory: Path) -> Editor:
        """Give a person the command: the API server knows them by a certificate, which it has signed."""
        return cls(_kubeconfig(kube, namespace, _certificate(kube, person), directory))

    def run(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run the command, which has to end with this code."""
        done = subprocess.run(
            [*COMMAND, *words],
            check=False,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, f"coppice {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start the command; what it tells comes by ``stderr``."""
        environment, quiet = self._environment, subprocess.DEVNULL
        return subprocess.Popen(
            [*COMMAND, *words], env=environment, stdin=quiet, stdout=quiet, stderr=subprocess.PIPE, text=True
        )

    def json(self, *words: str) -> Any:
        """Run the command and return its result."""
        return json.loads(self.run(*words, "--output", "json").stdout)

    @property
    def _environment(self) -> dict[str, str]:
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig)}


def _kubeconfig(kube: Kube, namespace: str, user: dict[str, str], directory: Path) -> Path:
    known = json.loads(kube.run("config", "view", "--minify", "--flatten", "--raw", "-o", "json"))
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": NAME,
        "clusters": [{"name": NAME, "cluster": known["clusters"][0]["cluster"]}],
        "users": [{"name": NAME, "user": user}],
        "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": NAME, "namespace": namespace}}],
    }
    path = directory / "kubeconfig"
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def _certificate(kube: Kube, person: Person) -> dict[str, str]:
    """Have the cluster sign for a user, as kubeconfigs have it; the user's groups are its organisations.

    https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/
    """
    key = ec.generate_private_key(ec.SECP256R1())
    groups = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in person.groups]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, person.name), *groups])
    asked = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, SHA256())
    spec = {
        "request": _base64(asked.public_bytes(Encoding.PEM)),
        "signerName": "kubernetes.io/kube-apiserver-client",
        "expirationSeconds": 3600,
        "usages": ["client auth"],
    }
    kind = {"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest"}
    text = kube.yaml({**kind, "metadata": {"generateName": "coppice-e2e-"}, "spec": spec})
    made = kube.run("create", "-f", "-", "-o", "name", stdin=text).strip()
    kube.run("certificate", "approve", made)
    kube.run("wait", "--for=jsonpath={.status.certificate}", made, TIMEOUT)
    signed = kube.run("get", made, "-o", "jsonpath={.status.certificate}")
    kube.run("delete", made)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return {"client-certificate-data": signed, "client-key-data": _base64(pem)}


def _base64(data: bytes) -> str:
    return b64encode(data).decode()


def query(statement: str) -> list[str]:
    """Return the command that asks the database in its environment for some rows."""
    return [sys.executable, str(PROGRAMS / "query.py"), statement]
