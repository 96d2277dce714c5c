"""One comment on a pull request that is kept up to date, whoever wrote it: the operator, or a CI job before it.

It is found again by its first line, which no reader sees; nothing about it is remembered. A comment of somebody else's
that begins like it is not ours to change, and is passed over.
"""

from __future__ import annotations

from coppice.forges.client import ForgeClient
from coppice.forges.errors import ForbiddenError, MissingError


async def keep_comment(client: ForgeClient, repository: str, number: int, text: str) -> None:
    """Have one comment with this text on a pull request, in the place of the one that begins with the same line.

    Where it says so already nothing is written. Raises ``coppice.forges.errors.ForgeError``.
    """
    marker = text.partition("\n")[0]
    for comment in await client.list_comments(repository, number):
        if comment.text.replace("\r\n", "\n").partition("\n")[0] != marker:
            continue
        if comment.text.replace("\r\n", "\n").strip() == text.strip():
            return
        try:
            await client.update_comment(repository, number, comment.number, text)
        except (ForbiddenError, MissingError):
            continue
        return
    await client.create_comment(repository, number, text)
