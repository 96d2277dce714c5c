"""``coppice pr up``, ``down``, ``status`` and ``comment``: the clone of a pull request, for CI systems that apply no
manifests.

Each may be called as often as one likes: ``up`` makes the clone or tells it of the newest commit, ``down`` is done
where there is none. A clone of the same name that is for something else is never touched.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Final

import click

from coppice.api.v1alpha1 import OnClose, OnRevision, PullRequestRef
from coppice.cli import options
from coppice.cli.completion import names_of
from coppice.cli.pipelines import EVENT, Found, read_job, read_page
from coppice.cli.problems import Failure
from coppice.cli.read import the
from coppice.cli.session import Session, command, plain
from coppice.cli.waiting import until_gone, until_settled
from coppice.cli.wishes import Preview, clone_wish, edit_of, preview_wish, read_source
from coppice.cli.words import facts, is_ready, is_resting, next_step, state, title
from coppice.core.plan import Manifest, Ref
from coppice.core.pullrequests import PullRequestKey
from coppice.forges.errors import ForbiddenError, ForgeError, UnauthorizedError
from coppice.forges.posting import keep_comment
from coppice.forges.settings import connect, forge_settings
from coppice.kube.errors import AlreadyExistsError, ConflictError

AMENDMENTS: Final = 5
"""How often a change is tried again after somebody else's: the operator writes the status."""
TOKENS: Final = ("GITHUB_TOKEN", "GITLAB_TOKEN")
_name: Final = click.argument("name", required=False, shell_complete=names_of("DataClone"))
_page: Final = click.option(
    "--pull-request",
    "page",
    metavar="URL",
    help="The page of the pull request. Left out: what GitHub Actions, GitLab CI or Jenkins says the job is for.",
)
_file: Final = click.option(
    "--comment",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file that gets the text for a comment on the pull request (Markdown).",
)


@command("pr up")
@_name
@options.source
@_page
@click.option("--revision", help="The newest commit of the pull request; what the CI system says, if left out.")
@click.option(
    "--on-revision",
    "policy",
    type=click.Choice([policy.value for policy in OnRevision], case_sensitive=False),
    help="What a new commit does to the data; Keep if left out.",
)
@click.option(
    "--keep-changes", is_flag=True, help="Leave what was changed on a branch of the store when the clone closes."
)
@click.option("--migrations", metavar="JOB", help="A suspended Job of the namespace that changes each copy.")
@click.option("--lease", metavar="DURATION|Never", help="Longest life: 3d. The administrator's if left out.")
@click.option("--idle", metavar="DURATION|Never", help="Life after the last use: 2h.")
@click.option("--profile", help="Size of the clone: a name in clones.profiles of the store.")
@click.option("--secret", metavar="NAME", help="Secret that gets the connection; NAME-binding if left out.")
@click.option("--app-url", metavar="URL", help="Where the application answers, for the comment.")
@_file
@options.waiting
async def up(  # noqa: PLR0913, PLR0917 - one parameter for each option
    session: Session,
    name: str | None,
    store: str,
    page: str | None,
    revision: str | None,
    policy: str | None,
    keep_changes: bool,  # noqa: FBT001
    migrations: str | None,
    lease: str | None,
    idle: str | None,
    profile: str | None,
    secret: str | None,
    app_url: str | None,
    comment: Path | None,
    wait: bool,  # noqa: FBT001
    patience: timedelta,
    **points: str | None,
) -> None:
    """Have a clone for a pull request, at its newest commit: NAME, or pr-<number>."""
    found = _meant(page)
    clone = clone_wish(
        name or _name_of(found.pull_request),
        session.namespace,
        read_source(store, points),
        lease={"max": lease, "idle": idle},
        profile=profile,
        secret=secret,
    )
    chosen = None if policy is None else OnRevision(policy)
    preview = Preview(
        found.pull_request,
        revision or found.revision,
        chosen,
        OnClose.KEEP_CHANGES if keep_changes else None,
        migrations,
        app_url,
    )
    made = await _have(session, preview_wish(clone, preview), patience)
    if not wait:
        session.show(plain(made), f"{title(made)} is asked for")
        return
    made = await until_settled(session, made, patience)
    _write(comment, made)
    known = [f"  {name:<10}{value}" for name, value in facts(made, session.now())]
    session.show(plain(made), f"{title(made)}: {state(made)}", *known)


@command("pr status")
@_name
@_page
@_file
async def status(session: Session, name: str | None, page: str | None, comment: Path | None) -> int:
    """Show what people read of the clone of a pull request; the exit code is 1 where it is not ready."""
    found = _meant(page)
    clone = await the(session, "DataClone", name or _name_of(found.pull_request), session.namespace)
    _refuse_other(clone, found.pull_request)
    _write(comment, clone)
    session.show(plain(clone), _text_of(clone), f"next step: {next_step(clone)}")
    return 0 if is_ready(clone) or is_resting(clone) else 1


@command("pr comment")
@_name
@_page
@click.option(
    "--api",
    metavar="URL",
    envvar=["GITHUB_API_URL", "CI_API_V4_URL"],
    help="Where the forge's API is; what the CI system says, or the forge's usual place, if left out.",
)
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file with a token that may comment; $GITHUB_TOKEN or $GITLAB_TOKEN if left out.",
)
async def comment(
    session: Session, name: str | None, page: str | None, api: str | None, token_file: Path | None
) -> None:
    """Write a comment on the pull request that says what its clone is, or bring the one that is there up to date."""
    found = _meant(page)
    clone = await the(session, "DataClone", name or _name_of(found.pull_request), session.namespace)
    _refuse_other(clone, found.pull_request)
    with _token(token_file) as path:
        await _post(found.pull_request, api, path, _text_of(clone))
    session.show(plain(clone), f"the comment on {title(clone)} is up to date")


@contextmanager
def _token(file: Path | None) -> Iterator[Path]:
    """Give a file with the token, which a forge's client reads anew when it changes."""
    if file is not None:
        yield file
        return
    token = next((os.environ[name] for name in TOKENS if os.environ.get(name)), None)
    if token is None:
        raise Failure(f"there is no token: name a file with --token-file, or set {' or '.join(TOKENS)}")
    with NamedTemporaryFile("w", encoding="utf-8") as made:  # nobody else may read it
        made.write(token)
        made.flush()
        yield Path(made.name)


async def _post(pull_request: PullRequestRef, api: str | None, token_file: Path, text: str) -> None:
    try:
        settings = forge_settings(pull_request.provider, pull_request.forge, api or "", token_file)
    except ValueError as error:
        raise click.UsageError(f"{api!r} is not the address of an API, such as https://api.github.com") from error
    client = connect(settings, clock=lambda: datetime.now(UTC))
    try:
        await keep_comment(client, pull_request.repository, pull_request.number, text)
    except ForgeError as error:
        denied = isinstance(error, UnauthorizedError | ForbiddenError)
        step = ": the job needs a token that may write comments on pull requests" if denied else ""
        raise Failure(f"{error}{step}") from error
    finally:
        await client.aclose()


@command("pr down")
@_name
@_page
@options.waiting
async def down(
    session: Session,
    name: str | None,
    page: str | None,
    wait: bool,  # noqa: FBT001
    patience: timedelta,
) -> None:
    """Delete the clone of a pull request; where there is none, it is done."""
    found = _meant(page)
    name = name or _name_of(found.pull_request)
    clone = await session.cluster.get("DataClone", name, session.namespace)
    if clone is None:
        session.show({}, f"there is no DataClone {session.namespace}/{name}: nothing is left to do")
        return
    _refuse_other(clone, found.pull_request)
    # Exactly the one that was looked at: one of its name that was made meanwhile is another.
    await session.cluster.delete(Ref.of(clone))
    if wait:
        await until_gone(session, clone, patience)
    session.show(plain(clone), f"{title(clone)} {'is gone' if wait else 'is being deleted'}")


def _meant(page: str | None) -> Found:
    """Return the pull request that is named, or else that the job is for."""
    if page is not None:
        named = read_page(page)
        job = read_job(os.environ, _event())
        return job if job is not None and _is_same(job.pull_request, named) else Found(named)
    job = read_job(os.environ, _event())
    if job is None:
        raise click.UsageError("this is no job for a pull request: name one, --pull-request URL of its page")
    return job


def _event() -> Mapping[str, Any]:
    """Return what GitHub Actions says of why the job was started."""
    path = os.environ.get(EVENT)
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8")) if path else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, Mapping) else {}


def _name_of(pull_request: PullRequestRef) -> str:
    return f"pr-{pull_request.number}"


async def _have(session: Session, wish: Manifest, patience: timedelta) -> Manifest:
    """Make the clone, or have the one that is there be as it is wished for."""
    name, wanted = wish["metadata"]["name"], wish["spec"]
    for _ in range(AMENDMENTS):
        try:
            return await session.cluster.create(wish)
        except AlreadyExistsError:
            present = await session.cluster.get("DataClone", name, session.namespace)
        if present is None:
            continue
        _refuse_other(present, PullRequestRef.model_validate(wanted["pullRequest"]))
        if "deletionTimestamp" in present["metadata"]:
            await until_gone(session, present, patience)
            continue
        if present["spec"]["from"] != wanted["from"]:
            raise Failure(f"{title(present)} is a copy of something else: coppice pr down, and then coppice pr up")
        try:
            return await session.cluster.amend(edit_of(present, wanted))
        except ConflictError:
            continue
    raise Failure(f"{title(wish)} is changed by others all the time: call coppice pr up again")


def _refuse_other(clone: Manifest, pull_request: PullRequestRef) -> None:
    there = clone["spec"].get("pullRequest")
    if there is None or not _is_same(PullRequestRef.model_validate(there), pull_request):
        raise Failure(f"{title(clone)} is not for this pull request: choose another name")


def _is_same(one: PullRequestRef, other: PullRequestRef) -> bool:
    return one.provider is other.provider and PullRequestKey.named_by(one) == PullRequestKey.named_by(other)


def _write(path: Path | None, clone: Manifest) -> None:
    if path is not None:
        path.write_text(_text_of(clone), encoding="utf-8")


def _text_of(clone: Manifest) -> str:
    """Return the text for a comment: the operator's, or what little there is before that has looked."""
    text: str | None = (clone.get("status") or {}).get("comment")
    return text or f"{title(clone)}: {state(clone)}"
