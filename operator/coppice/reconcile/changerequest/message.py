"""The message of the one commit that a published request becomes. Pure.

The trailers are ours: whoever reads the history later finds author, reviewers and request there. Title and description
are the author's, and can be edited after the approval, so that nothing in them may pass for a trailer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from coppice.api.v1alpha1 import DataChangeRequest
from coppice.engines.merging import plain

_TRAILER: Final = re.compile(r"^(?=[A-Za-z0-9-]+\s*:)", re.MULTILINE)
"""The beginning of a line that git-interpret-trailers(1) would take for one."""


def commit_message(request: DataChangeRequest, reviewers: Sequence[str]) -> str:
    """Return the message: title, description, and who proposed and approved it."""
    spec, metadata = request.spec, request.metadata
    trailers = [f"Proposed-by: {plain(spec.author)}", *(f"Reviewed-by: {plain(name)}" for name in sorted(reviewers))]
    trailers.append(f"Coppice-Request: {metadata.namespace}/{metadata.name}")
    paragraphs = [spec.title, _TRAILER.sub("| ", _text(spec.description)), "\n".join(trailers)]
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph)


def _text(text: str | None) -> str:
    """Return a text with nothing but plain ends of lines."""
    return "\n".join(plain(line) if line.strip() else "" for line in (text or "").splitlines()).strip()
