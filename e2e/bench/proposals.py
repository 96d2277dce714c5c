"""What the benchmarks of change requests have in common, whatever the engine: which rows change, what the steps are
called, and the servers on which somebody changes rows.

Coppice and whoever does the same by hand have clones of their own and change other rows, so that neither finds what the
other has brought already.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from coppice.core import labels
from e2e.bench.api import both, named, ready
from e2e.bench.lab import decoded
from e2e.bench.prober import Login
from e2e.bench.subjects import STORE

if TYPE_CHECKING:
    from e2e.bench.api import Manifest
    from e2e.bench.lab import Lab

CLONE: Final = "work"
"""Whose changes are proposed."""
CLONE_BY_HAND: Final = "work-by-hand"
COMPUTED: Final = "fetched, merged, compared"
PUBLISHED: Final = "published"
ROWS: Final = "all changed rows read"
"""The steps, as tables of figures call them."""
PARTIES: Final = 4
"""Who changes rows in a run: two clones, and others meanwhile where each of them is brought to."""


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """So many rows of a table of so many rows: a tenth is added, a tenth deleted, the rest modified. ``number``: no two
    of different numbers have a row in common, up to some hundreds of them.
    """

    rows: int
    changed: int
    number: int

    @property
    def _some(self) -> int:
        return self.changed // 10

    @property
    def modified(self) -> list[int]:
        """Return rows all over the first nine tenths of the table."""
        return self._spread(1, self.rows * 9 // 10, self.changed - 2 * self._some)

    @property
    def deleted(self) -> list[int]:
        """Return rows all over the last tenth of the table."""
        first = self.rows * 9 // 10 + 1
        return self._spread(first, self.rows - first + 1, self._some)

    @property
    def added(self) -> list[int]:
        """Return new rows after all others."""
        first = self.rows + 1 + self.number * self._some
        return list(range(first, first + self._some))

    def _spread(self, first: int, of: int, count: int) -> list[int]:
        if not count:
            return []
        step = of // count
        if self.number >= step:
            raise ValueError(f"{self.rows} rows are too few for {self.number + 1} times {self.changed} changes")
        return [first + self.number + place * step for place in range(count)]

    def statements(self) -> list[str]:
        """Return the statements that make the changes."""
        new = ", ".join(f"({row}, 'new {row}', 9.99, {self.number}, 'added')" for row in self.added)
        made = [f"UPDATE item SET price = price + 1, stock = {self.number} WHERE id IN {_listed(self.modified)}"]
        if new:
            made += [f"DELETE FROM item WHERE id IN {_listed(self.deleted)}", f"INSERT INTO item VALUES {new}"]
        return made


def _listed(rows: list[int]) -> str:
    return f"({', '.join(map(str, rows))})"


@dataclass(slots=True)
class Servers:
    """The store's server and those of its clones, and how their administrators log in."""

    lab: Lab
    logins: dict[str, Login] = field(default_factory=dict)

    async def take_up(self) -> None:
        """Know the store's own server."""
        self.logins[STORE] = await self.lab.store_login()

    async def make_clone(self, name: str) -> None:
        """Make a clone, in the place of one of that name."""
        lab = self.lab
        await self.remove_clone(name)
        lab.api.forget()
        await lab.clone(lab.owners, name)
        await lab.api.until("DataClone", both(named(lab.owners, name), ready), f"{name} is Ready")
        pod = await self.pod(name)
        password = (await self.passwords(pod))["admin-password"]
        self.logins[name] = replace(await lab.store_login(), host=pod["status"]["podIP"], password=password)

    async def remove_clone(self, name: str) -> None:
        """Have no clone of that name."""
        kept = await self.lab.api.client.get("DataClone", name, self.lab.owners)
        if kept is not None:
            await self.lab.remove_clone(dict(kept))

    async def pod(self, name: str) -> Manifest:
        """Return the Pod of the store's server or of a clone's."""
        lab = self.lab
        if name == STORE:
            return dict(await lab.api.client.get("Pod", f"{STORE}-server", lab.owners) or {})
        found = await lab.api.client.get("DataClone", name, lab.owners) or {}
        [pod] = await lab.api.client.list("Pod", lab.owners, {labels.OWNER_UID: found["metadata"]["uid"]})
        return dict(pod)

    async def passwords(self, pod: Manifest) -> dict[str, str]:
        """Return what a server's Secret holds."""
        variables = pod["spec"]["containers"][0]["env"]
        [name] = {entry["valueFrom"]["secretKeyRef"]["name"] for entry in variables if "valueFrom" in entry}
        return decoded(await self.lab.api.client.get("Secret", name, self.lab.owners))
