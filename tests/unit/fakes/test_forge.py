"""The fake forge says what GitHub's documentation says it would: what is tested against it may be believed."""

import json
import urllib.request
from typing import Any

import pytest
from tests.fakes.forge import Answer, Forge, read_request

PULLS = "/api/v3/repos/acme/shop/pulls"


class Clock:
    def __init__(self) -> None:
        self.time = 1_000_000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def forge(clock: Clock) -> Forge:
    forge = Forge(now=clock)
    for number in range(1, 8):
        forge.repository("acme/shop").open(f"change {number}", f"branch-{number}", f"{number:040d}")
    return forge


def ask(forge: Forge, target: str, method: str = "GET", body: Any = None, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return forge.answer(read_request(method, target, named, json.dumps(body).encode() if body else b""))


def test_lists_the_newest_first_and_leaves_out_what_is_closed(forge: Forge) -> None:
    forge.repository("acme/shop").pulls[7].state = "closed"
    assert [pull["number"] for pull in ask(forge, PULLS).content] == [6, 5, 4, 3, 2, 1]
    assert [pull["number"] for pull in ask(forge, f"{PULLS}?state=closed").content] == [7]
    assert len(ask(forge, f"{PULLS}?state=all").content) == 7


def test_pages_are_linked_and_the_last_one_has_no_next(forge: Forge) -> None:
    first = ask(forge, f"{PULLS}?per_page=3")
    assert len(first.content) == 3
    assert f'<https://github.example{PULLS}?per_page=3&page=2>; rel="next"' in first.headers["link"]
    assert 'page=3>; rel="last"' in first.headers["link"]
    last = ask(forge, f"{PULLS}?per_page=3&page=3")
    assert [pull["number"] for pull in last.content] == [1]
    assert 'rel="next"' not in last.headers["link"]
    assert "link" not in ask(forge, PULLS).headers


def test_what_has_not_changed_is_not_sent_again_and_not_counted(forge: Forge) -> None:
    first = ask(forge, PULLS)
    again = ask(forge, PULLS, if_none_match=first.headers["etag"])
    assert (again.status, again.body, again.headers["x-ratelimit-used"]) == (304, b"", "1")
    forge.repository("acme/shop").pulls[1].sha = "f" * 40
    assert ask(forge, PULLS, if_none_match=first.headers["etag"]).status == 200


def test_an_hour_has_so_many_requests(forge: Forge, clock: Clock) -> None:
    forge.limit = 2
    assert [ask(forge, PULLS).status for _ in range(3)] == [200, 200, 403]
    refused = ask(forge, PULLS)
    assert refused.headers["x-ratelimit-remaining"] == "0"
    clock.time = float(refused.headers["x-ratelimit-reset"])
    assert ask(forge, PULLS).status == 200
    forge.exhaust()
    assert ask(forge, PULLS).status == 403


def test_bad_days_are_as_many_as_a_test_asks_for(forge: Forge) -> None:
    forge.fail(2, status=502, path="/pulls")
    forge.throttle(seconds=7)
    answers = [ask(forge, PULLS) for _ in range(4)]
    assert [answer.status for answer in answers] == [502, 502, 403, 200]
    assert answers[2].headers["retry-after"] == "7"
    forge.forgetful = True
    assert ask(forge, PULLS).content == []


def test_a_token_and_a_repository_that_are_unknown(forge: Forge) -> None:
    forge.tokens = {"sesame"}
    assert ask(forge, PULLS, authorization="Bearer mellon").status == 401
    assert ask(forge, PULLS, authorization="Bearer sesame").status == 200
    assert ask(forge, PULLS.replace("shop", "stop"), authorization="token sesame").status == 404


def test_tells_a_fork_and_one_that_is_gone(forge: Forge) -> None:
    shop = forge.repository("acme/shop")
    shop.open("from outside", "main", "a" * 40, fork="eve/shop", labels=("preview",))
    shop.pulls[1].head_repository = None
    listed = {pull["number"]: pull for pull in ask(forge, PULLS).content}
    assert (listed[8]["head"]["repo"]["full_name"], listed[8]["head"]["repo"]["fork"]) == ("eve/shop", True)
    assert [label["name"] for label in listed[8]["labels"]] == ["preview"]
    assert listed[1]["head"]["repo"] is None
    assert listed[2]["head"]["repo"]["fork"] is False


def test_comments_are_made_found_changed_and_removed(forge: Forge) -> None:
    issue = "/api/v3/repos/acme/shop/issues"
    made = ask(forge, f"{issue}/3/comments", "POST", {"body": "one"})
    assert (made.status, made.content["user"]["login"]) == (201, "coppice[bot]")
    comment = f"{issue}/comments/{made.content['id']}"
    assert ask(forge, comment, "PATCH", {"body": "two"}).content["body"] == "two"
    assert [found["id"] for found in ask(forge, f"{issue}/3/comments").content] == [made.content["id"]]
    assert ask(forge, f"{issue}/4/comments").content == []
    assert forge.repository("acme/shop").comments_of(3) == ["two"]
    assert ask(forge, f"{issue}/3/comments", "POST", {"body": "x" * 65537}).status == 422
    assert ask(forge, f"{issue}/99/comments", "POST", {"body": "one"}).status == 404
    assert ask(forge, comment, "DELETE").status == 204
    assert ask(forge, comment).status == 404


def test_the_newest_status_of_a_context_counts(forge: Forge) -> None:
    sha = "1" * 40
    path = f"/api/v3/repos/acme/shop/statuses/{sha}"
    for state in ("pending", "success"):
        assert ask(forge, path, "POST", {"state": state, "context": "coppice"}).status == 201
    assert ask(forge, path, "POST", {"state": "fine"}).status == 422
    assert ask(forge, path, "POST", {"state": "error", "description": "x" * 141}).status == 422
    assert forge.repository("acme/shop").status_of(sha, "coppice") == "success"
    listed = ask(forge, f"/api/v3/repos/acme/shop/commits/{sha}/statuses").content
    assert [status["state"] for status in listed] == ["success", "pending"]


def test_says_the_same_behind_a_socket(forge: Forge) -> None:
    with forge.serving() as url:
        with urllib.request.urlopen(f"{url}{PULLS}?per_page=1") as answer:
            assert json.load(answer)[0]["number"] == 7
            assert f'<{url}{PULLS}?per_page=1&page=2>; rel="next"' in answer.headers["Link"]
        with urllib.request.urlopen(
            urllib.request.Request(f"{url}/api/v3/repos/acme/shop/issues/1/comments", b'{"body": "hi"}')
        ) as answer:
            assert answer.status == 201
    assert [request.method for request in forge.asked] == ["GET", "POST"]
