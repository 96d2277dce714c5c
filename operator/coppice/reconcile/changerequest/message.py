"""The one commit that a published request becomes: its message, and who made it. Pure.

The trailers are ours: whoever reads the history later finds author, reviewers and request there. Title and description
are the author's, and can be edited after the approval, so that nothing in them may pass for a trailer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from coppice.api.v1alpha1 import DataChangeRequest
from coppice.engines.merging import Signature

_TRAILER: Final = re.compile(r"^(?=[A-Za-z0-9-]+\s*:)", re.MULTILINE)
"""The beginning of a line that git-interpret-trailers(1) would take for one."""
_NOBODY: Final = "users.coppice.invalid"


def commit_message(request: DataChangeRequest, reviewers: Sequence[str]) -> str:
    """Return the message: title, description, and who proposed and approved it."""
    spec, metadata = request.spec, request.metadata
    trailers = [f"Proposed-by: {_line(spec.author)}", *(f"Reviewed-by: {_line(name)}" for name in sorted(reviewers))]
    trailers.append(f"Coppice-Request: {metadata.namespace}/{metadata.name}")
    paragraphs = [spec.title, _TRAILER.sub("| ", _text(spec.description)), "\n".join(trailers)]
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph)


def signature_of(author: str) -> Signature:
    """Return the author of the commit: the user name as it is, and an address, which is nobody's where it is none."""
    name = _line(author)
    return Signature(
        name=name, email=name if re.fullmatch(r"[^@<>\s]+@[^@<>\s]+", name) else f"{_slug(name)}@{_NOBODY}"
    )


def _line(text: str) -> str:
    """Return a text without what would end its line, or pass for an address, in a commit."""
    return " ".join(re.sub(r"[\x00-\x1f\x7f<>]+", " ", text).split())


def _text(text: str | None) -> str:
    """Return a text with nothing but plain ends of lines."""
    return "\n".join(_line(line) if line.strip() else "" for line in (text or "").splitlines()).strip()


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-") or "somebody"
