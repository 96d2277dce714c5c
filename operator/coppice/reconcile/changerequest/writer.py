"""Whether an approved change may be written to a database that somebody else runs, and with what. Pure.

A login of its own does it, and its Secret says so: who may write DataStores, or has agreed that Coppice looks, has not
agreed that it writes.
"""

from __future__ import annotations

from typing import Final

from coppice.core import labels
from coppice.engines.base import LoginRefusedError, UnguardedError, UnreachableError
from coppice.manifests.secret import is_meant_for
from coppice.reconcile.adopted import Adoption
from coppice.reconcile.changerequest.sources import SOURCE
from coppice.reconcile.draft import Fact, stalls, waits
from coppice.reconcile.reads import Answer

LOOK_SECONDS: Final = 10.0
"""Between two looks at what somebody else has to make or change: it is not watched."""


def writer_problem(store: str, writer: Adoption | None, answer: Answer | None) -> Fact | None:
    """Return why nothing can be written to an adopted database now, or None. ``writer`` is as ``read_writer`` returns
    it, and ``answer`` what the server says to that login.
    """
    if writer is None:
        message = (
            f"DataStore {store} names no login to write with: set spec.adopted.writer.secretName there, or make this "
            "DataChangeRequest anew with publish: Patch and have somebody run it"
        )
        return stalls(SOURCE, "WriterMissing", message, retry_after=LOOK_SECONDS)
    return _secret_problem(writer) or _server_problem(writer, answer)


def _secret_problem(writer: Adoption) -> Fact | None:
    name, where = writer.secret_name, writer.namespace
    if writer.secret is None:
        message = (
            f"there is no Secret {name} in this namespace: create it with username and password of a login that may "
            f"write to the tables, and the annotation {labels.WRITER_OF}={writer.store}"
        )
        return waits(SOURCE, "WriterNotFound", message, retry_after=LOOK_SECONDS)
    if not is_meant_for(writer.secret, writer.store, consent=labels.WRITER_OF):
        message = (
            f"Secret {name} does not say that approved changes may be written with it, and is not sent anywhere. If "
            f"they may: kubectl annotate secret {name} -n {where} {labels.WRITER_OF}={writer.store}"
        )
        return stalls(SOURCE, "WriterNotMeant", message, retry_after=LOOK_SECONDS)
    if writer.login is None:
        message = f"Secret {name} does not hold a username and a password, both as text: put them into it"
        return stalls(SOURCE, "WriterIncomplete", message, retry_after=LOOK_SECONDS)
    return None


def _server_problem(writer: Adoption, answer: Answer | None) -> Fact | None:
    error, store = None if answer is None else answer.error, f"DataStore {writer.store}"
    if answer is None or isinstance(error, UnreachableError):
        message = f"waits for the server of {store}; see its conditions"
        return waits(SOURCE, "StoreNotReady", message, retry_after=LOOK_SECONDS)
    if isinstance(error, LoginRefusedError):
        message = (
            f"the server of {store} refuses the login in Secret {writer.secret_name}: correct the Secret, or make that "
            "login in the server"
        )
        return stalls(SOURCE, "WriterRefused", message, retry_after=30)
    if isinstance(error, UnguardedError):
        message = f"the password in Secret {writer.secret_name} was not sent to the server of {store}: {error}"
        return stalls(SOURCE, "WriterNotGuarded", message, retry_after=30)
    if error is not None:
        message = f"the server of {store} answered with an error: {error}"
        return waits(SOURCE, "StoreNotReady", message, retry_after=LOOK_SECONDS)
    return None
