"""One comment is kept up to date, on a forge that answers over HTTP."""

import pytest
from tests.unit.forges.builders import SHOP, desk

from coppice.forges.posting import keep_comment
from coppice.forges.settings import Provider

TEXT = "<!-- coppice: app/db -->\n**Database `app/db`: ready**"


@pytest.fixture(params=list(Provider))
async def at(request, tmp_path):
    async with desk(request.param, tmp_path) as at:
        at.forge.repository(SHOP).open("prices", "prices", "a" * 40)
        yield at


async def said(at):
    return [comment.text for comment in await at.client.list_comments(SHOP, 1)]


def writes(at):
    return [words for words in at.asked() if not words.startswith("GET")]


async def test_it_is_written_once_and_changed_in_its_place(at):
    asleep = TEXT.replace("ready", "Asleep")
    for text in (TEXT, TEXT, asleep, asleep):
        await keep_comment(at.client, SHOP, 1, text)
        assert await said(at) == [text]
    assert len(writes(at)) == 2


async def test_what_others_write_is_left_alone(at):
    await at.client.create_comment(SHOP, 1, "look at <!-- coppice: app/db -->")
    await keep_comment(at.client, SHOP, 1, TEXT)
    other = TEXT.replace("app/db", "app/other")
    await keep_comment(at.client, SHOP, 1, other)
    assert await said(at) == ["look at <!-- coppice: app/db -->", TEXT, other]


async def test_one_that_is_not_ours_to_change_is_passed_over(at):
    lure = "<!-- coppice: app/db -->\nfree money"
    await at.client.create_comment(SHOP, 1, lure)
    for method in ("PATCH", "PUT"):  # GitHub's, GitLab's
        at.forge.fail(status=403, method=method)
    await keep_comment(at.client, SHOP, 1, TEXT)
    assert await said(at) == [lure, TEXT]


async def test_line_ends_of_a_forge_are_no_change(at):
    await at.client.create_comment(SHOP, 1, TEXT.replace("\n", "\r\n") + "\r\n")
    writes(at)
    await keep_comment(at.client, SHOP, 1, TEXT)
    assert writes(at) == []
