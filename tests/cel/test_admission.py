"""Who may write requests and reviews, by the admission policies of the chart in a real API server that knows its users.

People are impersonated: to the policies that is who they are.
"""

from __future__ import annotations

import contextlib
import itertools
import time

import pytest
from tests.cel.cases import put
from tests.cel.test_objects import url
from tests.fakes.apiserver import find_binaries, run_api_server
from tests.fakes.required import lacks

from coppice.crdgen import crd_manifests
from coppice.manifests.admission import API_GROUP, BINDING, POLICY, build_policies
from coppice.reconcile.changerequest.identity import identity_problem

NAMESPACE = "data"
GARBAGE_COLLECTOR = "system:serviceaccount:kube-system:generic-garbage-collector"
NAMESPACE_CONTROLLER = "system:serviceaccount:kube-system:namespace-controller"
BOT = "system:serviceaccount:ci:bot"
WRITE = ["create", "update", "patch", "delete", "deletecollection", "get", "list"]
REVIEWERS = ["datareviews"]
REQUESTS = ["datachangerequests"]
PATCH = {"proposal": "a1", "source": "b2", "resolutions": "c3", "digest": "d4"}
NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """An API server with RBAC and our policies, where everybody may write everything, and maintainers may publish."""
    binaries = find_binaries()
    if binaries is None:
        lacks("no etcd and kube-apiserver in $COPPICE_ASSETS or on the PATH")
    with run_api_server(binaries, tmp_path_factory.mktemp("admission"), authorization="RBAC") as server:
        server.install_crds(crd_manifests())
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        assert server.request("POST", "/api/v1/namespaces", namespace).ok
        allow(server, "writers", REQUESTS + REVIEWERS, WRITE, "system:authenticated")
        allow(server, "maintainers", REQUESTS, ["publish"], "maintainers")
        allow(server, "clone-editors", ["dataclones"], ["update"], "clone-editors")
        for manifest in build_policies():
            reply = server.request("POST", place(manifest["kind"]), manifest)
            assert reply.ok, reply.body
        wait_until(lambda: not made(server, "eve", request_of("ann"), dry=True).ok)
        wait_until(lambda: not made(server, "eve", review_of("bea"), dry=True).ok)
        yield server


def allow(server, name, resources, verbs, group):
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": name},
        "rules": [{"apiGroups": ["coppice.dev"], "resources": resources, "verbs": verbs}],
    }
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"kind": "Group", "name": group, "apiGroup": "rbac.authorization.k8s.io"}],
    }
    for plural, body in (("clusterroles", role), ("clusterrolebindings", binding)):
        assert server.request("POST", f"/apis/rbac.authorization.k8s.io/v1/{plural}", body).ok


def place(kind, name=""):
    plural = {POLICY: "validatingadmissionpolicies", BINDING: "validatingadmissionpolicybindings"}[kind]
    return f"/apis/{API_GROUP}/v1/{plural}{name and '/'}{name}"


def wait_until(holds, seconds=30):
    """The API server takes up a policy some moments after it was made."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "the API server does not take up the policies"
        time.sleep(0.2)


def request_of(author, **spec):
    values = {"title": "Prices", "store": {"name": "shop"}, "author": author, "from": {"branch": "work"}}
    return {
        "apiVersion": "coppice.dev/v1alpha1",
        "kind": "DataChangeRequest",
        "metadata": {"name": f"r{next(NUMBERS)}"},
        "spec": {**values, "into": {"branch": "main"}, **spec},
    }


def review_of(reviewer, **spec):
    return {
        "apiVersion": "coppice.dev/v1alpha1",
        "kind": "DataReview",
        "metadata": {"name": f"r{next(NUMBERS)}"},
        "spec": {"request": "prices", "reviewer": reviewer, "verdict": "RequestChanges", **spec},
    }


def made(server, user, body, groups=(), *, dry=False):
    path = f"{url(body['kind'], namespace=NAMESPACE)}{'?dryRun=All' if dry else ''}"
    return server.request("POST", path, body, user=user, groups=groups)


def there(server, user, body):
    reply = made(server, user, body)
    assert reply.ok, reply.body
    return reply.body


def send(server, user, method, body, patch=None, groups=()):
    path = url(body["kind"], body["metadata"]["name"], NAMESPACE)
    return server.request(method, path, patch, user=user, groups=groups)


def refused(reply, words):
    assert reply.status == 403, reply.body
    assert words in reply.body["message"]


def test_a_request_is_of_whoever_makes_it_people_and_programs(cluster):
    assert made(cluster, "ann", request_of("ann")).ok
    assert made(cluster, BOT, request_of(BOT)).ok
    refused(made(cluster, "eve", request_of("ann")), "spec.author must be your own user name, eve")
    refused(made(cluster, BOT, request_of("ann")), "spec.author must be your own user name")
    refused(made(cluster, "admin", request_of("ann"), ["system:masters"]), "spec.author must be your own user name")


def test_a_request_is_changed_by_its_author_and_maintainers_alone(cluster):
    ours = there(cluster, "ann", request_of("ann"))
    for change in ({"title": "Other"}, {"resolutions": [{"take": "Source"}]}, {"merge": "Manual"}):
        refused(send(cluster, "eve", "PATCH", ours, {"spec": change}), "only its author and whoever may publish")
        assert send(cluster, "ann", "PATCH", ours, {"spec": change}).ok
        assert send(cluster, "max", "PATCH", ours, {"spec": change}, ["maintainers"]).ok
    refused(send(cluster, "eve", "DELETE", ours), "only its author and whoever may publish")
    assert send(cluster, "max", "DELETE", ours, groups=["maintainers"]).ok


@pytest.mark.parametrize("clone", [{"name": "db"}, {"name": "db", "namespace": "shop-pr-42"}])
def test_a_clone_is_proposed_by_whoever_may_update_it(cluster, clone):
    source = {"from": {"clone": clone}}
    refused(made(cluster, "ann", request_of("ann", **source)), "a clone is proposed by whoever may update it")
    refused(made(cluster, "ann", request_of("ann", **source), ["maintainers"]), "a clone is proposed by whoever")
    reply = made(cluster, "ann", request_of("ann", **source), ["clone-editors"])
    assert reply.ok, reply.body
    # It was asked when it was proposed; what is proposed is immutable.
    assert send(cluster, "max", "PATCH", reply.body, {"spec": {"merge": "Manual"}}, ["maintainers"]).ok
    elsewhere = {"from": {"clone": {**clone, "name": "other"}}}
    assert not send(cluster, "ann", "PATCH", reply.body, {"spec": elsewhere}).ok


def test_the_right_to_one_clone_is_no_right_to_another(cluster):
    own = {"name": "ann-s-clone", "namespace": "default"}
    body = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": own,
        "rules": [
            {"apiGroups": ["coppice.dev"], "resources": ["dataclones"], "verbs": ["update"], "resourceNames": ["mine"]}
        ],
    }
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": own,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": own["name"]},
        "subjects": [{"kind": "User", "name": "ann", "apiGroup": "rbac.authorization.k8s.io"}],
    }
    for plural, manifest in (("roles", body), ("rolebindings", binding)):
        path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/default/{plural}"
        assert cluster.request("POST", path, manifest).ok
    mine = {"from": {"clone": {"name": "mine", "namespace": "default"}}}
    wait_until(lambda: made(cluster, "ann", request_of("ann", **mine), dry=True).ok)
    for clone in ({"name": "mine"}, {"name": "other", "namespace": "default"}):
        refused(made(cluster, "ann", request_of("ann", **{"from": {"clone": clone}})), "a clone is proposed by")


def test_nobody_becomes_another_author(cluster):
    ours = there(cluster, "ann", request_of("ann"))
    for user in ("ann", "eve"):
        assert not send(cluster, user, "PATCH", ours, {"spec": {"author": "eve"}}).ok


@pytest.mark.parametrize(
    ("held", "released"),
    [
        ({"merge": "Manual"}, {"merge": "WhenApproved"}),
        ({"notBefore": "2030-01-01T00:00:00Z"}, {"notBefore": None}),
        ({"notBefore": "2030-01-01T00:00:00Z"}, {"notBefore": "2029-12-31T23:59:59Z"}),
        ({"notBefore": "2030-01-01T00:00:00Z"}, {"notBefore": "2030-01-01T00:30:00+01:00"}),
    ],
)
def test_what_waits_for_a_maintainer_is_released_by_one(cluster, held, released):
    ours = there(cluster, "ann", request_of("ann", **held))
    refused(send(cluster, "ann", "PATCH", ours, {"spec": released}), "only whoever may publish")
    assert send(cluster, "max", "PATCH", ours, {"spec": released}, ["maintainers"]).ok


def test_an_author_may_hold_back(cluster):
    ours = there(cluster, "ann", request_of("ann"))
    for later in ({"notBefore": "2030-01-01T00:00:00Z"}, {"notBefore": "2030-01-01T00:00:01Z"}, {"merge": "Manual"}):
        assert send(cluster, "ann", "PATCH", ours, {"spec": later}).ok


def test_a_name_that_only_looks_like_the_author_s_is_another(cluster):
    ours = there(cluster, "ann", request_of("ann"))
    for user in ("Ann", "oidc:ann", "system:serviceaccount:data:ann", "ann@example.com"):
        refused(made(cluster, user, request_of("ann")), "spec.author must be your own user name")
        refused(send(cluster, user, "PATCH", ours, {"spec": {"title": "Other"}}), "only its author")
        refused(send(cluster, user, "DELETE", ours), "only its author")


def test_nobody_takes_a_request_over_by_a_whole_new_version_of_it(cluster):
    ours = there(cluster, "ann", request_of("ann"))
    path = url("DataChangeRequest", ours["metadata"]["name"], NAMESPACE)
    for user, groups in (("eve", ()), ("ann-s-friend", ["clone-editors"]), (BOT, ())):
        refused(send(cluster, user, "PUT", ours, put(ours, ".spec.title", "Other"), groups), "only its author")
        applied = {**request_of(user, title="Other"), "metadata": {"name": ours["metadata"]["name"]}}
        assert not cluster.request("APPLY", f"{path}?fieldManager=eve&force=true", applied, user=user, groups=groups).ok
    assert cluster.request("GET", path).body["spec"] == ours["spec"]


def test_all_requests_at_once_are_deleted_by_nobody_whose_they_are_not(cluster):
    ours = there(cluster, "ann", request_of("ann"))
    refused(cluster.request("DELETE", url("DataChangeRequest", namespace=NAMESPACE), user="eve"), "only its author")
    assert cluster.request("GET", url("DataChangeRequest", ours["metadata"]["name"], NAMESPACE)).ok
    assert cluster.request(
        "DELETE", url("DataChangeRequest", namespace=NAMESPACE), user="max", groups=["maintainers"]
    ).ok


def test_a_request_is_not_collected_by_giving_it_an_owner_that_is_gone(cluster):
    ours = there(cluster, "ann", request_of("ann"))
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "u"}
    refused(send(cluster, "eve", "PATCH", ours, {"metadata": {"ownerReferences": [owner]}}), "only its author")


@pytest.mark.parametrize("body", [request_of, review_of])
@pytest.mark.parametrize("change", [{"finalizers": ["eve.example.com/keep"]}, {"labels": {"a": "b"}}])
def test_marks_are_for_anybody_who_may_write_and_change_nothing_that_counts(cluster, body, change):
    ours = there(cluster, "bea", body("bea"))
    reply = send(cluster, "eve", "PATCH", ours, {"metadata": change})
    assert reply.ok, reply.body
    assert reply.body["spec"] == ours["spec"]


@pytest.mark.parametrize("body", [request_of, review_of])
def test_nobody_but_the_operator_writes_a_status(cluster, body):
    ours = there(cluster, "bea", body("bea"))
    path = f"{url(ours['kind'], ours['metadata']['name'], NAMESPACE)}/status"
    for user in ("bea", "eve", BOT):
        for method in ("PATCH", "PUT"):
            sent = {"status": {"observedGeneration": 7}} if method == "PATCH" else {**ours, "status": {}}
            assert cluster.request(method, path, sent, user=user, groups=["maintainers"]).status == 403
    # A status beside a specification is left out.
    sent = send(cluster, "bea", "PATCH", ours, {"status": {"observedGeneration": 7}})
    assert sent.ok, sent.body
    assert "observedGeneration" not in sent.body.get("status", {})


@pytest.mark.parametrize("body", [request_of, review_of])
def test_who_writes_by_a_status_writes_no_specification(cluster, body):
    ours = there(cluster, "bea", body("bea"))
    path = f"{url(ours['kind'], ours['metadata']['name'], NAMESPACE)}/status"
    taken = {"title": "Other"} if body is request_of else {"verdict": "Approve"}
    reply = cluster.request("PATCH", path, {"spec": taken}, user="admin", groups=["system:masters"])
    assert reply.ok, reply.body
    assert reply.body["spec"] == ours["spec"]


def test_a_service_account_reviews_as_nobody_whatever_groups_it_has(cluster):
    refused(made(cluster, "bea", review_of(BOT)), "spec.reviewer must be your own user name")
    refused(made(cluster, BOT, review_of("bea")), "spec.reviewer must be your own")
    refused(made(cluster, BOT, review_of(BOT), ["system:masters"]), "people review, no service accounts")
    refused(made(cluster, BOT, review_of("bea"), ["system:masters"]), "spec.reviewer must be your own")


def test_a_group_counts_as_it_is_written(cluster):
    for group in ("Owners", "owners ", "oidc:owners", "system:masters"):
        refused(made(cluster, "bea", review_of("bea", groups=[group]), ["owners"]), "groups that you are in")
    refused(made(cluster, "bea", review_of("bea", groups=["owners", "others"]), ["owners"]), "groups that you are in")


def test_a_review_is_not_given_to_somebody_else_and_back(cluster):
    ours = there(cluster, "bea", review_of("bea"))
    assert not send(cluster, "bea", "PATCH", ours, {"spec": {"reviewer": "cy"}}).ok
    for user in ("cy", "Bea", "oidc:bea", "system:serviceaccount:data:bea"):
        refused(
            send(cluster, user, "PATCH", ours, {"spec": {"verdict": "Approve", "patch": PATCH}}), "nobody changes or"
        )
        refused(send(cluster, user, "DELETE", ours), "nobody changes or removes a review")


def test_a_review_is_of_whoever_makes_it(cluster):
    assert made(cluster, "bea", review_of("bea")).ok
    refused(made(cluster, "eve", review_of("bea")), "spec.reviewer must be your own user name, eve")
    refused(made(cluster, "admin", review_of("bea"), ["system:masters"]), "spec.reviewer must be your own")
    applied = review_of("bea")
    path = f"{url('DataReview', applied['metadata']['name'], NAMESPACE)}?fieldManager=eve"
    refused(cluster.request("APPLY", path, applied, user="eve"), "spec.reviewer must be your own")


def test_no_service_account_reviews(cluster):
    refused(made(cluster, BOT, review_of(BOT)), "people review, no service accounts")


def test_groups_are_those_that_the_reviewer_is_in(cluster):
    assert made(cluster, "bea", review_of("bea", groups=["owners"]), ["owners", "others"]).ok
    refused(made(cluster, "bea", review_of("bea", groups=["owners"]), ["others"]), "groups that you are in")
    ours = there(cluster, "bea", review_of("bea"))
    refused(send(cluster, "bea", "PATCH", ours, {"spec": {"groups": ["owners"]}}), "groups that you are in")
    assert send(cluster, "bea", "PATCH", ours, {"spec": {"groups": ["owners"]}}, ["owners"]).ok


def test_a_review_is_changed_by_its_reviewer_alone(cluster):
    ours = there(cluster, "bea", review_of("bea"))
    for user, groups in (("eve", ()), ("max", ["maintainers"]), ("admin", ["system:masters"]), (BOT, ())):
        reply = send(cluster, user, "PATCH", ours, {"spec": {"comment": "fine"}}, groups)
        assert reply.status == 403, reply.body
        assert not send(cluster, user, "PATCH", ours, {"spec": {"reviewer": user}}, groups).ok
        whole = put(ours, ".spec.comment", "fine")
        assert send(cluster, user, "PUT", ours, whole, groups).status == 403
    assert send(cluster, "bea", "PATCH", ours, {"spec": {"comment": "as I said"}}).ok


def test_nobody_removes_a_verdict_of_somebody_else(cluster):
    ours = there(cluster, "bea", review_of("bea"))
    for user, groups in (("eve", ()), ("max", ["maintainers"]), ("admin", ["system:masters"]), (BOT, ())):
        refused(send(cluster, user, "DELETE", ours, groups=groups), "nobody changes or removes a review")
    every = url("DataReview", namespace=NAMESPACE)
    refused(cluster.request("DELETE", every, user="eve"), "nobody changes or removes a review")
    # What has lost its owner is collected: a way to have it removed.
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "u"}
    reply = send(cluster, "eve", "PATCH", ours, {"metadata": {"ownerReferences": [owner]}})
    refused(reply, "nobody changes or removes a review")
    assert cluster.request("GET", url("DataReview", ours["metadata"]["name"], NAMESPACE)).ok
    assert send(cluster, "bea", "DELETE", ours).ok


@pytest.mark.parametrize("controller", [GARBAGE_COLLECTOR, NAMESPACE_CONTROLLER, "system:kube-controller-manager"])
@pytest.mark.parametrize("body", [request_of, review_of])
def test_a_namespace_can_be_emptied_and_what_has_no_owner_removed(cluster, controller, body):
    ours = there(cluster, "bea", body("bea"))
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "u"}
    assert send(cluster, controller, "PATCH", ours, {"metadata": {"ownerReferences": [owner]}}).ok
    assert send(cluster, controller, "PATCH", ours, {"spec": {"title": "x", "comment": "x"}}).status == 403
    assert send(cluster, controller, "DELETE", ours).ok


@pytest.mark.parametrize("body", [request_of, review_of])
def test_the_operator_s_own_writes_pass(cluster, body):
    ours, operator = there(cluster, "bea", body("bea")), "system:serviceaccount:coppice-system:coppice"
    mark = {"metadata": {"annotations": {"coppice.dev/seen": "yes"}, "finalizers": ["coppice.dev/cleanup"]}}
    assert send(cluster, operator, "PATCH", ours, mark).ok
    assert send(cluster, operator, "PATCH", ours, {"metadata": {"finalizers": None}}).ok
    path = f"{url(ours['kind'], ours['metadata']['name'], NAMESPACE)}/status"
    status = {"status": {"observedGeneration": 1}}
    assert cluster.request("PATCH", path, status, user=operator, groups=["system:masters"]).ok


def found(cluster):
    """What of the policies is in the cluster, as the operator reads it."""
    replies = {
        (one["kind"], one["metadata"]["name"]): cluster.request("GET", place(one["kind"], one["metadata"]["name"]))
        for one in build_policies()
    }
    return {key: reply.body if reply.ok else None for key, reply in replies.items()}


def test_as_they_are_made_the_policies_are_known_with_all_that_the_api_server_adds(cluster):
    assert identity_problem(found(cluster)) is None


@contextlib.contextmanager
def altered(cluster, kind, name, patch):
    before = cluster.request("GET", place(kind, name)).body
    assert cluster.request("PATCH", place(kind, name), patch).ok
    yield
    now = cluster.request("GET", place(kind, name)).body["metadata"]["resourceVersion"]
    before["metadata"]["resourceVersion"] = now
    assert cluster.request("PUT", place(kind, name), before).ok


ALTERATIONS = [
    (POLICY, {"failurePolicy": "Ignore"}),
    (POLICY, {"validations": [{"expression": "true"}]}),
    (POLICY, {"matchConditions": [{"name": "never", "expression": "false"}]}),
    (POLICY, {"matchConstraints": {"namespaceSelector": {"matchLabels": {"a": "b"}}}}),
    (POLICY, {"matchConstraints": {"objectSelector": {"matchLabels": {"a": "b"}}}}),
    (POLICY, {"matchConstraints": {"matchPolicy": "Exact"}}),
    (POLICY, {"variables": [{"name": name, "expression": "true"} for name in ("sweeps", "same", "maintains")]}),
    (BINDING, {"validationActions": ["Audit"]}),
    (BINDING, {"validationActions": ["Deny", "Audit"]}),
    (BINDING, {"matchResources": {"namespaceSelector": {"matchLabels": {"a": "b"}}}}),
]


@pytest.mark.parametrize("name", sorted({one["metadata"]["name"] for one in build_policies()}))
@pytest.mark.parametrize(("kind", "spec"), ALTERATIONS)
def test_an_altered_policy_is_noticed(cluster, kind, name, spec):
    with altered(cluster, kind, name, {"spec": spec}):
        problem = identity_problem(found(cluster))
        assert problem is not None
        assert f"{kind} {name} is not as Coppice made it" in problem
    assert identity_problem(found(cluster)) is None


@pytest.mark.parametrize("one", build_policies(), ids=lambda one: f"{one['kind']}-{one['metadata']['name']}")
def test_an_absent_policy_is_noticed(cluster, one):
    kind, name = one["kind"], one["metadata"]["name"]
    assert cluster.request("DELETE", place(kind, name)).ok
    problem = identity_problem(found(cluster))
    assert problem is not None
    assert f"{kind} {name} is absent" in problem
    assert cluster.request("POST", place(kind), one).ok
    assert identity_problem(found(cluster)) is None
