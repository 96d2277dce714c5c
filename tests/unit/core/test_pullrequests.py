"""A pull request is its repository and number, and nothing is known of it until its forge has told."""

from __future__ import annotations

from coppice.core.pullrequests import NoForges, PullRequestKey, Unknown, UnknownReason


def test_the_case_of_names_makes_no_other_pull_request() -> None:
    one = PullRequestKey.of("GitHub.com", "Acme/Shop", 42)
    assert one == PullRequestKey("github.com", "acme/shop", 42)
    assert str(one) == "github.com/acme/shop#42"


def test_another_number_or_host_is_another_pull_request() -> None:
    one = PullRequestKey.of("github.com", "acme/shop", 42)
    assert one != PullRequestKey.of("github.com", "acme/shop", 43)
    assert one != PullRequestKey.of("ghe.example.com", "acme/shop", 42)


def test_without_a_forge_nobody_knows_and_nothing_may_be_done() -> None:
    known = NoForges().look(PullRequestKey("github.com", "acme/shop", 42))
    assert isinstance(known, Unknown)
    assert known.reason is UnknownReason.NOT_CONFIGURED
    assert "github.com/acme/shop#42" in known.message
    assert NoForges().terms("github.com") is None
