"""What the chart copies from elsewhere is fresh, and no role gives more than its purpose."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from helm import generate
from helm.generate import Rule

from coppice.kube.rbac import cluster_rules, namespace_rules
from coppice.kube.resources import RESOURCES, Resource
from coppice.manifests.admission import MAINTAIN, build_policies

CHART = generate.CHART
SNAPSHOT_CRDS = {
    f"{name}.{group}"
    for group, name in (
        ("groupsnapshot.storage.k8s.io", "volumegroupsnapshotclasses"),
        ("groupsnapshot.storage.k8s.io", "volumegroupsnapshotcontents"),
        ("groupsnapshot.storage.k8s.io", "volumegroupsnapshots"),
        ("snapshot.storage.k8s.io", "volumesnapshotclasses"),
        ("snapshot.storage.k8s.io", "volumesnapshotcontents"),
        ("snapshot.storage.k8s.io", "volumesnapshots"),
    )
}


def allowed(rules: list[Rule]) -> set[tuple[str, str, str]]:
    return {
        (group, plural, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for plural in rule["resources"]
        for verb in rule["verbs"]
    }


def test_the_chart_holds_what_the_generator_makes():
    assert generate.stale(CHART, generate.generated()) == []


def test_a_changed_a_missing_and_a_foreign_file_are_stale(tmp_path: Path):
    generate.write(tmp_path, {"files/crds/a.yaml": "a", "files/crds/b.yaml": "b"})
    assert generate.stale(tmp_path, {"files/crds/a.yaml": "a", "files/crds/b.yaml": "b"}) == []
    wanted = {"files/crds/a.yaml": "changed", "files/rbac/c.yaml": "c"}
    assert generate.stale(tmp_path, wanted) == ["files/crds/a.yaml", "files/crds/b.yaml", "files/rbac/c.yaml"]
    generate.write(tmp_path, wanted)
    assert generate.stale(tmp_path, wanted) == []


def test_the_operator_may_do_what_the_table_says_and_nothing_else():
    cluster, namespace = cluster_rules(), namespace_rules()
    table = {(kind.group, kind.plural, verb) for kind in RESOURCES.values() for verb in kind.verbs}
    extra = (allowed(cluster) | allowed(namespace)) - table
    assert table <= allowed(cluster) | allowed(namespace)
    assert {(group, plural.partition("/")[2] or plural, verb) for group, plural, verb in extra} == {
        ("", "log", "get"),
        ("apiextensions.k8s.io", "customresourcedefinitions", "get"),
        ("apiextensions.k8s.io", "customresourcedefinitions", "list"),
        ("apiextensions.k8s.io", "customresourcedefinitions", "watch"),
        ("coppice.dev", "status", "patch"),
        ("coppice.dev", "finalizers", "update"),
    }


def test_leases_are_of_the_operators_own_namespace_only():
    cluster, namespace = cluster_rules(), namespace_rules()
    assert not any("leases" in rule["resources"] for rule in cluster)
    assert {plural for _, plural, _ in allowed(namespace)} == {"leases"}


def test_rules_are_sorted_and_merge_plurals_with_equal_verbs():
    rules = generate.rules_of(
        [
            Resource("b", "v1", "y", ("list", "get")),
            Resource("a", "v1", "z", ("get",)),
            Resource("b", "v1", "x", ("get", "list")),
        ]
    )
    assert rules == [
        {"apiGroups": ["a"], "resources": ["z"], "verbs": ["get"]},
        {"apiGroups": ["b"], "resources": ["x", "y"], "verbs": ["get", "list"]},
    ]


@pytest.mark.parametrize("role", sorted(generate.PEOPLE))
def test_nobody_is_given_a_status_a_wildcard_or_another_group(role: str):
    for group, plural, verb in allowed(generate.people_rules(RESOURCES)[role]):
        assert group == generate.GROUP
        assert "/" not in plural
        assert "*" not in plural + verb


def test_an_editor_writes_clones_alone():
    writes = {
        plural for _, plural, verb in allowed(generate.people_rules(RESOURCES)["edit"]) if verb not in generate.READ
    }
    assert writes == {"dataclones"}


def test_grants_have_a_role_of_their_own():
    people = generate.people_rules(RESOURCES)
    writers = {
        role
        for role in people
        for _, plural, verb in allowed(people[role])
        if plural == "datagrants" and verb == "create"
    }
    assert writers == {"grant-admin"}
    assert {plural for _, plural, _ in allowed(people["grant-admin"])} == {"datagrants"}


def test_who_reviews_does_not_propose_by_that_and_only_a_maintainer_acts_on_requests_of_others():
    people = {role: allowed(rules) for role, rules in generate.people_rules(RESOURCES).items()}

    def who(plural: str, verb: str) -> set[str]:
        return {role for role, rights in people.items() if (generate.GROUP, plural, verb) in rights}

    for verb in generate.WRITE:
        assert who("datachangerequests", verb) == {"author", "maintainer"}
        assert who("datareviews", verb) == {"reviewer"}
    assert who("datachangerequests", MAINTAIN) == {"maintainer"}
    for verb in generate.READ:
        assert who("datachangerequests", verb) == {"view", "author", "reviewer", "maintainer"}
        assert who("datareviews", verb) == {"view", "author", "reviewer", "maintainer"}


def test_the_operator_has_no_say_in_a_review():
    verbs = {verb for _, plural, verb in allowed(cluster_rules()) if plural == "datareviews"}
    assert verbs == set(generate.READ)


def test_the_operator_reads_its_own_admission_policies_and_no_others():
    (rule,) = (rule for rule in cluster_rules() if rule["apiGroups"] == ["admissionregistration.k8s.io"])
    assert rule == {
        "apiGroups": ["admissionregistration.k8s.io"],
        "resources": ["validatingadmissionpolicies", "validatingadmissionpolicybindings"],
        "verbs": ["get"],
        "resourceNames": sorted({policy["metadata"]["name"] for policy in build_policies()}),
    }
    assert [rule for rule in cluster_rules() if "resourceNames" in rule] == [rule]


def test_all_six_snapshot_crds_are_there_and_known_as_the_charts_own():
    crds = [yaml.safe_load(path.read_text()) for path in CHART.glob("crds/*.yaml")]
    assert {crd["metadata"]["name"] for crd in crds} == SNAPSHOT_CRDS
    assert {crd["metadata"]["annotations"]["coppice.dev/installed-by"] for crd in crds} == {"chart"}
