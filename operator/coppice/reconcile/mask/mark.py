"""What is known of a mask: on the scratch claim while it is on its way, then on the prepared VolumeSnapshot. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from coppice.core import labels
from coppice.core.names import digest
from coppice.core.plan import Manifest
from coppice.engines.base import BranchState, Finding
from coppice.reconcile.observed import annotation

SUCCEEDED: Final = "Succeeded"
FAILED: Final = "Failed"
MAX_NAMED: Final = 100
"""How many of the tables that a mask has changed are named at most."""
MAX_NAME: Final = 256
_TOKEN: Final = 8
"""Length of what is remembered of a table: the claim's annotations hold 256 KiB."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What stands on the scratch claim from the moment on that a mask may change it.

    ``server`` and ``job`` are UIDs. ``before`` has a digest of each table as it was, ``sources`` where the branches
    were. ``outcome`` is empty until the Job has ended; ``tables`` are those that it changed, of which ``count`` there
    are.
    """

    server: str
    job: str
    template: str
    digest: str
    database: str
    sources: tuple[BranchState, ...]
    before: frozenset[str]
    outcome: str = ""
    tables: tuple[str, ...] = ()
    count: int = 0

    def dump(self) -> str:
        """Return the annotation's text."""
        data = {
            "server": self.server,
            "job": self.job,
            "template": self.template,
            "digest": self.digest,
            "database": self.database,
            "sources": [[s.database, s.branch, s.head, s.working_root] for s in self.sources],
            "before": "".join(sorted(self.before)),
            "outcome": self.outcome,
            "tables": self.tables,
            "count": self.count,
        }
        return json.dumps(data, separators=(",", ":"))

    @classmethod
    def of(cls, claim: Manifest) -> Mark | None:
        """Return what stands on a claim; one that cannot be read is one of a mask that nobody knows."""
        text = annotation(claim, labels.MASKING)
        if text is None:
            return None
        try:
            data = json.loads(text)
            before = data["before"]
            return cls(
                server=data["server"],
                job=data["job"],
                template=data["template"],
                digest=data["digest"],
                database=data["database"],
                sources=tuple(BranchState(*entry) for entry in data["sources"]),
                before=frozenset(before[at : at + _TOKEN] for at in range(0, len(before), _TOKEN)),
                outcome=data["outcome"],
                tables=tuple(data["tables"]),
                count=data["count"],
            )
        except (ValueError, KeyError, TypeError):
            return cls("", "", "", "", "", (), frozenset())

    def ended_with(self, tables: Mapping[str, str]) -> Mark:
        """Return the mark of a Job that has succeeded, and left these tables."""
        changed = sorted(name for name, token in tables.items() if table_token(name, token) not in self.before)
        named = tuple(name[:MAX_NAME] for name in changed[:MAX_NAMED])
        return replace(self, before=frozenset(), outcome=SUCCEEDED, tables=named, count=len(changed))


def table_token(name: str, token: str) -> str:
    """Return what is remembered of a table as it was."""
    return digest(name, token, length=_TOKEN)


@dataclass(frozen=True, slots=True)
class MaskRecord:
    """What a snapshot says of its mask. ``sources`` are where its branches were in the store."""

    template: str
    digest: str
    tables: tuple[str, ...]
    count: int
    sources: tuple[BranchState, ...]

    def dump(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "jobTemplate": self.template,
            "digest": self.digest,
            "tables": list(self.tables),
            "tableCount": self.count,
            "sources": [[s.database, s.branch, s.head, s.working_root] for s in self.sources],
        }

    @classmethod
    def load(cls, data: Mapping[str, Any]) -> MaskRecord:
        """Parse what ``dump`` returned; raises KeyError or TypeError for anything else."""
        return cls(
            template=data["jobTemplate"],
            digest=data["digest"],
            tables=tuple(data["tables"]),
            count=data["tableCount"],
            sources=tuple(BranchState(*entry) for entry in data["sources"]),
        )

    @property
    def status(self) -> dict[str, Any]:
        """Return what the status says."""
        return {
            "jobTemplate": self.template,
            "digest": self.digest,
            "tables": list(self.tables),
            "tableCount": self.count,
        }

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Return what whoever gets the data should know of the mask."""
        if self.count:
            return ()
        return (Finding("NothingMasked", f"Job {self.template} succeeded and changed no table"),)
