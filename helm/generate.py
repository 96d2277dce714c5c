# ruff: noqa: INP001 (a script beside the chart, not a package)
"""Copy into the chart what has its source elsewhere: Coppice's CRDs, and RBAC rules from the table of resources.

Helm reads nothing outside a chart's folder, so the chart holds copies under ``files/``; ``--check`` fails when one
is stale.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from coppice.kube.resources import RESOURCES, Resource

CHART = Path(__file__).resolve().parent / "coppice"
CRDS = Path(__file__).resolve().parent.parent / "crds"
GROUP = "coppice.dev"

READ = ("get", "list", "watch")
WRITE = ("create", "delete", "deletecollection", "patch", "update")

BESIDE_THE_TABLE = (
    Resource("", "v1", "pods/log", ("get",)),
    # kopf notices a kind whose CRD comes later by watching these
    Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", READ, namespaced=False),
)
"""What the operator needs besides the verbs on the kinds themselves."""

PEOPLE = {
    "view": (READ, ("datastores", "datagrants", "datasnapshots", "databranches", "dataclones")),
    "edit": (WRITE, ("dataclones",)),
    "store-admin": ((*READ, *WRITE), ("datastores", "datasnapshots", "databranches")),
    "grant-admin": ((*READ, *WRITE), ("datagrants",)),
    "binding": (READ, ("dataclones",)),
}
"""What people (and service binding controllers) may be given; nobody but the operator writes a status."""

Rule = dict[str, list[str]]


def rules_of(resources: Iterable[Resource]) -> list[Rule]:
    """Return the RBAC rules for these resources: sorted, without wildcards, plurals with equal verbs in one rule."""
    plurals: dict[tuple[str, tuple[str, ...]], set[str]] = defaultdict(set)
    for resource in resources:
        plurals[resource.group, tuple(sorted(resource.verbs))].add(resource.plural)
    return [
        {"apiGroups": [group], "resources": sorted(names), "verbs": list(verbs)}
        for (group, verbs), names in sorted(plurals.items(), key=lambda item: (item[0][0], sorted(item[1])))
    ]


def operator_rules(resources: Mapping[str, Resource]) -> tuple[list[Rule], list[Rule]]:
    """Return the operator's rules for the whole cluster, and those for its own namespace."""
    leases = [resource for resource in resources.values() if resource.plural == "leases"]
    own = [resource for resource in resources.values() if resource.group == GROUP]
    beside = [
        *BESIDE_THE_TABLE,
        *(Resource(GROUP, kind.version, f"{kind.plural}/status", ("patch",)) for kind in own),
        # for blockOwnerDeletion where the cluster enforces it (OwnerReferencesPermissionEnforcement)
        *(Resource(GROUP, kind.version, f"{kind.plural}/finalizers", ("update",)) for kind in own),
    ]
    return rules_of([*(kind for kind in resources.values() if kind not in leases), *beside]), rules_of(leases)


def people_rules(resources: Mapping[str, Resource]) -> dict[str, list[Rule]]:
    """Return the rules of each role for people, for the kinds that exist."""
    known = {resource.plural for resource in resources.values() if resource.group == GROUP}
    return {
        role: rules_of(Resource(GROUP, "v1alpha1", plural, verbs) for plural in plurals if plural in known)
        for role, (verbs, plurals) in PEOPLE.items()
    }


def generated(crds: Path = CRDS) -> dict[str, str]:
    """Return the content of every generated file by its path in the chart."""
    cluster, namespace = operator_rules(RESOURCES)
    rules = {"operator-cluster": cluster, "operator-namespace": namespace, **people_rules(RESOURCES)}
    files = {f"files/rbac/{name}.yaml": _dump(content) for name, content in rules.items()}
    return files | {f"files/crds/{path.name}": path.read_text() for path in sorted(crds.glob("*.yaml"))}


def stale(chart: Path, files: Mapping[str, str]) -> list[str]:
    """Return the generated files of the chart that are missing, differ, or should not exist."""
    present = {
        str(path.relative_to(chart)) for folder in ("rbac", "crds") for path in chart.glob(f"files/{folder}/*.yaml")
    }
    changed = {name for name, text in files.items() if name in present and (chart / name).read_text() != text}
    return sorted(changed | (present ^ files.keys()))


def write(chart: Path, files: Mapping[str, str]) -> None:
    """Bring the chart's generated files up to date."""
    for name in stale(chart, files):
        path = chart / name
        if name in files:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files[name])
        else:
            path.unlink()


def main(arguments: list[str] | None = None) -> int:
    """Write the generated files, or name the stale ones; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true", help="bring the chart's copies up to date")
    what.add_argument("--check", action="store_true", help="change nothing; fail when a copy is stale")
    files = generated()
    if parser.parse_args(arguments).write:
        write(CHART, files)
        return 0
    outdated = stale(CHART, files)
    if outdated:
        sys.stderr.write(f"stale in {CHART.name}: {', '.join(outdated)}; run python helm/generate.py --write\n")
    return 1 if outdated else 0


def _dump(content: Any) -> str:
    return "# Generated by helm/generate.py; do not edit.\n" + yaml.safe_dump(content, sort_keys=False)


if __name__ == "__main__":
    raise SystemExit(main())
