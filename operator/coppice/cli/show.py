"""``coppice crds`` and ``coppice rbac``: what to apply where the chart is not used."""

from __future__ import annotations

import click
import yaml

from coppice.crdgen import crd_manifests, crd_yaml
from coppice.kube.rbac import Rule, cluster_rules, namespace_rules

NAME = "coppice-operator"


@click.command("crds")
def crds() -> None:
    """Print the CustomResourceDefinitions, for kubectl apply --server-side -f -."""
    click.echo("---\n".join(crd_yaml(manifest) for manifest in crd_manifests().values()), nl=False)


@click.command("rbac")
@click.option("--namespace", default="coppice-system", show_default=True, help="Namespace of the operator.")
def rbac(namespace: str) -> None:
    """Print the operator's ClusterRole, and the Role in its own namespace."""
    roles = [_role("ClusterRole", cluster_rules()), _role("Role", namespace_rules(), namespace)]
    click.echo(yaml.safe_dump_all(roles, sort_keys=False), nl=False)


def _role(kind: str, rules: list[Rule], namespace: str | None = None) -> dict[str, object]:
    metadata = {"name": NAME, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": metadata, "rules": rules}
