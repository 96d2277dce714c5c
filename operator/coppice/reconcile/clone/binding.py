"""Links of the chain around the migrations: the server proves that it is what was asked for, and in the end apps are
told of it. Pure.
"""

from __future__ import annotations

from dataclasses import replace

from coppice.core import labels
from coppice.core.plan import EngineCall, Manifest
from coppice.engines.base import (
    Activity,
    Content,
    Engine,
    EngineError,
    LoginRefusedError,
    UnreachableError,
    Version,
)
from coppice.manifests.secret import build_binding_secret
from coppice.reconcile.clone.names import ENGINE, secret_name
from coppice.reconcile.clone.server import keep_service
from coppice.reconcile.clone.situation import Situation
from coppice.reconcile.clone.target import is_other_revision
from coppice.reconcile.copies import Copy, Marks, build_marks, has_served
from coppice.reconcile.draft import Draft, Fact, holds, stalls, waits
from coppice.reconcile.reads import Server, ensure_app_user, server_ref


def server_proves_itself(at: Situation, _draft: Draft) -> Fact:
    """Return whether the server answers as it must."""
    copy, seen = at.wanted_copy, at.seen
    engine = at.engine_of(copy)
    if engine is None:
        raise TypeError("the chain goes on without an engine")
    if isinstance(seen.activity, Activity):
        return _answering(at, engine)
    if isinstance(seen.activity, EngineError):
        return _problem(at, seen.activity)
    if seen.answer is None or seen.answer.content is None:
        return _problem(at, None if seen.answer is None else seen.answer.error)
    wrong = _wrong_identity(seen.answer.content, copy.origin.version)
    if wrong is not None:
        message = (
            f"the copy does not hold what was asked for: {wrong}. It is not handed out; ask for a reset to try again, "
            "and report this"
        )
        return stalls(ENGINE, "WrongIdentity", message, retry_after=None)
    return _answering(at, engine)


def _answering(at: Situation, engine: Engine) -> Fact:
    version, port = at.wanted_copy.origin.version, at.tls(engine).port_of(at.wanted_copy.pod)
    return holds(ENGINE, "Answering", f"answers at {at.host}:{port} with {version.branch} at {version.head}")


def _problem(at: Situation, error: EngineError | None) -> Fact:
    if isinstance(error, LoginRefusedError):
        message = (
            f"the server refuses the credentials in Secret {at.engine_secret}: restore that Secret, or ask for a reset"
        )
        return stalls(ENGINE, "CredentialsRefused", message, retry_after=30)
    if error is None or isinstance(error, UnreachableError):
        return waits(ENGINE, "NotAnswering", "the server runs but does not answer yet", retry_after=0.5)
    return waits(ENGINE, "EngineError", f"the server answered with an error: {error}", retry_after=10)


def _wrong_identity(content: Content, version: Version) -> str | None:
    state = content.state_of(version.branch)
    if state is None:
        return f"branch {version.branch} of database {version.database} is not there"
    if state.head != version.head:
        return f"branch {version.branch} is at {state.head}, not at {version.head}"
    if state.working_root != version.working_root:
        return f"the data on branch {version.branch} have the hash {state.working_root}, not {version.working_root}"
    return None


def apps_are_told(at: Situation, draft: Draft) -> Fact:
    """Give apps a login, then tell them; as long as they have another copy, only once the Service can lead to this."""
    copy, serving = at.wanted_copy, at.seen.serving
    engine = at.engine_of(copy)
    if engine is None:
        raise TypeError("the chain goes on without an engine")
    unrouted = None if serving is None or serving is copy else draft.route(copy.pod, ENGINE)
    if unrouted is not None:
        return unrouted
    values = binding_values(at, engine, at.host)
    secret = build_binding_secret(secret_name(at.clone), draft.owner, values, {labels.COPY: str(copy.number)})
    if serving is not copy:
        draft.calls.append(app_login(at, copy, engine))
    marks = _marks(at, copy)
    if marks is not None:
        # Before the binding: as soon as apps have it they may change what would have to be proven.
        draft.apply.append(marks)
    problem = (
        keep_service(at, draft, copy.number, engine, copy)
        or draft.keep(secret, at.seen.binding, ENGINE)
        or draft.route(copy.pod, ENGINE)
    )
    return problem or _answering(at, engine)


def app_login(at: Situation, copy: Copy, engine: Engine) -> EngineCall:
    """Return the call that makes the applications' login on a copy."""
    if copy.pod is None:
        raise TypeError("the chain goes on without a server")
    server = server_ref(copy.pod, engine, at.engine_secret)
    return ensure_app_user(copy.origin.engine, engine, server, copy.origin.version.database)


def binding_values(at: Situation, engine: Engine, host: str) -> dict[str, str]:
    """Return what an app, or a migration, must know to connect to the wanted copy under a host name."""
    password = Server(None, at.seen.secret).credentials["app-password"]
    version = at.wanted_copy.origin.version
    values = engine.binding(host=host, database=version.database, password=password, branch=version.branch)
    values = at.tls(engine).bind(values, at.wanted_copy.pod)
    return values | {key: template.format_map(values) for key, template in at.clone.spec.binding.keys.items()}


def _marks(at: Situation, copy: Copy) -> Manifest | None:
    """Return what is still to be written on the claim of a copy that serves.

    A revision through which the data are kept is the copy's own from then on, so that it is not acted upon later.
    """
    revision = at.clone.spec.revision if is_other_revision(at.clone, copy) else None
    if has_served(copy) and revision is None:
        return None
    marks = replace(
        Marks.of(copy),
        origin=replace(copy.origin, revision=revision or copy.origin.revision),
        proven_under=copy.proven_under or at.secret_uid,
        serves_since=copy.serves_since or at.seen.now,
    )
    return build_marks(copy, marks)
