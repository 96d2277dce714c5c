"""What is believed of a clone's pull request: every combination of grant, label and forge.

The manifest of a clone says anything: here it always says that it is number 42 of acme/shop, and what counts is who
else says so.
"""

from __future__ import annotations

from datetime import timedelta
from itertools import product

import pytest
from tests.fakes.forges import KEY, Told

from coppice.api.v1alpha1 import API_VERSION, PullRequestRef, Verb
from coppice.core.pullrequests import NoForges, PullRequest, PullRequestKey, State, Unknown, UnknownReason
from coppice.reconcile.belief import Alleged, Origin, Refusal, Speaker, look_up, origin_of
from coppice.reconcile.grants import Request, Terms, find_terms

OTHER = PullRequestKey("github.com", "evil/shop", 42)
OWN = PullRequest(KEY, State.OPEN, "abc", fork=False)
FORK = PullRequest(KEY, State.OPEN, "abc", fork=True)
UNSURE = PullRequest(KEY, State.OPEN, "abc", fork=None)
UNSET = Unknown(UnknownReason.NOT_CONFIGURED, "no forge is configured for github.com")
AWAY = Unknown(UnknownReason.UNAVAILABLE, "github.com has not answered yet")
LOST = Unknown(UnknownReason.NOT_FOUND, "github.com knows no such pull request, or its token may not read it")
FORGE = {"own": OWN, "fork": FORK, "unsure": UNSURE, "unset": UNSET, "away": AWAY, "lost": LOST}
GRANTED, REFUSED, WAITS = "granted", "ForkNotGranted", "ForgeUnavailable"


def grant(name="previews", **spec):
    wanted = {"store": "shop", "to": {"namespaces": ["app"]}, "verbs": ["Clone"], **spec}
    return {
        "apiVersion": API_VERSION,
        "kind": "DataGrant",
        "metadata": {"name": name, "namespace": "data"},
        "spec": wanted,
    }


def labels(number=None, fork=None):
    said = {"coppice.dev/pull-request": number, "coppice.dev/fork": fork}
    return {key: value for key, value in said.items() if value is not None}


def ask(*grants, said=KEY, told=UNSET, namespace=None, settled=False):
    alleged = None if said is None else Alleged(said, told)
    request = Request("app", namespace or {}, "shop", Verb.CLONE, alleged, settled=settled)
    return find_terms(grants, request)


def verdict(found):
    if isinstance(found, Refusal):
        return found.reason
    return None if found is None else GRANTED


SHOP = grant(repositories=["github.com/acme/shop"])
WITH_FORKS = grant(repositories=["github.com/acme/shop"], forks=True)
WITHOUT = grant()
ORIGINS = {
    # (forge, label coppice.dev/fork): what comes of it where the number is believed
    ("own", None): GRANTED,
    ("own", "false"): GRANTED,
    ("own", "true"): REFUSED,  # who labels for a fork is believed
    ("own", "no"): GRANTED,
    ("fork", None): REFUSED,
    ("fork", "false"): REFUSED,  # the forge wins
    ("fork", "true"): REFUSED,
    ("fork", "no"): REFUSED,
    ("unsure", None): REFUSED,
    ("unsure", "false"): REFUSED,
    ("unsure", "true"): REFUSED,
    ("unsure", "no"): REFUSED,
    ("unset", None): REFUSED,
    ("unset", "false"): GRANTED,  # nobody else is there to ask
    ("unset", "true"): REFUSED,
    ("unset", "no"): REFUSED,
    ("away", None): WAITS,
    ("away", "false"): WAITS,
    ("away", "true"): REFUSED,
    ("away", "no"): WAITS,
    ("lost", None): REFUSED,
    ("lost", "false"): REFUSED,
    ("lost", "true"): REFUSED,
    ("lost", "no"): REFUSED,
}


def test_the_table_is_complete():
    assert ORIGINS.keys() == set(product(FORGE, (None, "false", "true", "no")))


@pytest.mark.parametrize(("forge", "fork"), ORIGINS)
@pytest.mark.parametrize("number", ["42", "any"])
def test_where_the_number_is_believed_the_forge_or_the_label_say_whether_it_is_a_fork(forge, fork, number):
    found = ask(SHOP, told=FORGE[forge], namespace=labels(number, fork))
    assert verdict(found) == ORIGINS[forge, fork]


@pytest.mark.parametrize(("forge", "fork"), ORIGINS)
def test_where_nobody_vouches_for_the_number_it_counts_as_a_fork_whatever_is_known_of_it(forge, fork):
    """Else a fork's manifest would name the number of a pull request that is none."""
    found = ask(SHOP, told=FORGE[forge], namespace=labels(None, fork))
    assert verdict(found) == REFUSED
    assert "coppice.dev/pull-request=<number>" in found.message


@pytest.mark.parametrize(("forge", "fork"), ORIGINS)
@pytest.mark.parametrize("number", ["43", "042", "", "all", "4", " 42"])
@pytest.mark.parametrize("which", [SHOP, WITH_FORKS], ids=["own", "forks"])
def test_a_number_that_is_not_the_namespaces_is_refused_whatever_is_known_of_it(forge, fork, number, which):
    found = ask(which, told=FORGE[forge], namespace=labels(number, fork))
    assert verdict(found) == "PullRequestMismatch"
    assert f"coppice.dev/pull-request={number}," in found.message


@pytest.mark.parametrize(("forge", "fork"), ORIGINS)
@pytest.mark.parametrize("number", [None, "42", "any"])
def test_a_grant_for_forks_asks_nobody(forge, fork, number):
    assert verdict(ask(WITH_FORKS, told=FORGE[forge], namespace=labels(number, fork))) == GRANTED


@pytest.mark.parametrize("which", [SHOP, WITH_FORKS], ids=["own", "forks"])
@pytest.mark.parametrize("number", [None, "42", "any", "43"])
@pytest.mark.parametrize(
    "place", ["evil/shop", "acme/shop-evil", "acme/shop/evil", "github.com/acme/shop", "acme"], ids=str
)
def test_a_repository_that_claims_anothers_name_or_has_none_that_is_granted_is_refused(which, number, place):
    said = PullRequestKey.of("github.com", place, 42)
    told = PullRequest(said, State.OPEN, "abc", fork=False)
    assert verdict(ask(which, said=said, told=told, namespace=labels(number, "false"))) == "RepositoryNotGranted"


def test_the_same_path_on_another_host_is_another_repository():
    said = PullRequestKey.of("git.evil.example", "acme/shop", 42)
    told = PullRequest(said, State.OPEN, "abc", fork=False)
    assert verdict(ask(SHOP, said=said, told=told, namespace=labels("42", "false"))) == "RepositoryNotGranted"


@pytest.mark.parametrize("place", ["github.com/acme/shop", "github.com/Acme/SHOP"])
@pytest.mark.parametrize("said", ["acme/shop", "ACME/shop"])
def test_case_makes_no_other_repository(place, said):
    key = PullRequestKey.of("github.com", said, 42)
    assert verdict(ask(grant(repositories=[place]), said=key, told=OWN, namespace=labels("42"))) == GRANTED


@pytest.mark.parametrize("which", [SHOP, WITH_FORKS], ids=["own", "forks"])
@pytest.mark.parametrize("number", [None, "42", "any"])
def test_who_leaves_the_pull_request_out_gets_nothing_by_a_grant_for_repositories(which, number):
    """Else a fork's manifest would only have to leave it out."""
    assert verdict(ask(which, said=None, namespace=labels(number, "false"))) == "PullRequestRequired"


@pytest.mark.parametrize(("forge", "fork"), ORIGINS)
@pytest.mark.parametrize("said", [None, KEY, OTHER], ids=["none", "named", "others"])
@pytest.mark.parametrize("number", [None, "42", "43"])
def test_a_grant_without_repositories_is_for_all_objects_of_its_namespaces(forge, fork, said, number):
    found = ask(WITHOUT, said=said, told=FORGE[forge], namespace=labels(number, fork))
    assert verdict(found) == GRANTED
    assert found.speaks_for is None, "nobody has said for which repository the namespace speaks"


def test_of_several_grants_one_that_allows_it_is_enough_and_else_the_nearest_says_why():
    elsewhere = grant("a", repositories=["github.com/acme/other"])
    assert verdict(ask(elsewhere, SHOP, told=OWN, namespace=labels("42"))) == GRANTED
    assert verdict(ask(elsewhere, SHOP, told=FORK, namespace=labels("42"))) == "ForkNotGranted"
    assert verdict(ask(elsewhere, SHOP, told=AWAY, namespace=labels("42"))) == "ForgeUnavailable"
    assert verdict(ask(elsewhere, told=OWN, namespace=labels("42"))) == "RepositoryNotGranted"
    assert verdict(ask(elsewhere, SHOP, told=OWN, namespace=labels("43"))) == "PullRequestMismatch"
    open_to_all = grant("z", maxLease="1d")
    found = ask(elsewhere, SHOP, open_to_all, told=AWAY, namespace=labels("42"))
    assert isinstance(found, Terms)
    assert (found.grant, found.longest) == ("z", timedelta(days=1)), "what waits for a forge holds up no other grant"


def test_a_grant_that_does_not_mean_the_namespace_says_nothing_of_its_repositories():
    assert ask(grant(to={"namespaces": ["web"]}, repositories=["github.com/acme/shop"]), said=OTHER) is None
    assert ask(grant(verbs=["Branch"], repositories=["github.com/acme/shop"]), said=OTHER) is None


def test_what_is_left_of_a_clone_that_is_gone_was_judged_while_it_was_there():
    assert verdict(ask(SHOP, said=None, settled=True)) == GRANTED


@pytest.mark.parametrize("told", [OWN, FORK, AWAY], ids=["own", "fork", "away"])
@pytest.mark.parametrize(("number", "known"), [("42", KEY), ("any", KEY), ("43", None), (None, None)])
def test_a_namespace_speaks_for_a_pull_request_where_repository_and_number_are_believed(told, number, known):
    found = ask(SHOP, told=told, namespace=labels(number))
    assert found.speaks_for == known
    assert ask(SHOP, said=OTHER, told=told, namespace=labels(number)).speaks_for is None


@pytest.mark.parametrize("told", [AWAY, LOST], ids=["away", "lost"])
def test_what_the_forge_says_of_itself_is_in_the_message(told):
    found = ask(SHOP, told=told, namespace=labels("42"))
    assert told.message in found.message
    assert found.waits is (told is AWAY)


def test_a_forge_that_cannot_tell_is_not_helped_by_the_namespace():
    speaker = Speaker("app", labels("42", "false"), "previews", "data")
    assert origin_of(Alleged(KEY, UNSURE), speaker) is Origin.UNKNOWN


def test_a_clone_without_a_pull_request_asks_no_forge_and_another_one_makes_it_interested():
    forges = Told()
    assert look_up(None, forges) is None
    assert forges.looked == []
    said = PullRequestRef(provider="gitlab", repository="Acme/Web/Shop", number=7)
    found = look_up(said, forges)
    assert found is not None
    assert forges.looked == [PullRequestKey("gitlab.com", "acme/web/shop", 7)] == [found.key]
    own_host = PullRequestRef(provider="gitlab", host="git.example.com", repository="a/b", number=7)
    assert look_up(own_host, NoForges()) == Alleged(
        PullRequestKey("git.example.com", "a/b", 7), NoForges().look(PullRequestKey("git.example.com", "a/b", 7))
    )
