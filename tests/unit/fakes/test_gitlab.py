"""GitLab as the tests have it."""

from tests.fakes.forge import Request
from tests.fakes.gitlab import API, GitLabForge


def test_a_minute_counts_its_own_requests_alone() -> None:
    moment = [0.0]
    forge = GitLabForge(now=lambda: moment[0])
    forge.repository("acme/shop").open("a change", "branch", "1" * 40)
    first = forge.answer(Request("GET", f"{API}/projects/acme%2Fshop/merge_requests"))
    again = {"if-none-match": first.headers["etag"]}
    for minute in range(1, 4):
        moment[0] = 60.0 * minute
        answer = forge.answer(Request("GET", f"{API}/projects/acme%2Fshop/merge_requests", headers=again))
        assert (answer.status, answer.headers["ratelimit-observed"]) == (304, "1")
