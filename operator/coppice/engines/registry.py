"""Which engines there are: the built-in ones, and those of installed packages (entry-point group ``coppice.engines``).

An entry point names a class that fulfils ``coppice.engines.base.Engine`` and is called without arguments; its name is
the one ``spec.engine`` uses.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from coppice.engines.base import Engine
from coppice.engines.dolt import DoltEngine
from coppice.engines.postgresql import PostgreSQLEngine
from coppice.engines.terminusdb import TerminusDBEngine

GROUP: Final = "coppice.engines"

BUILT_IN: Final[Mapping[str, Callable[[], Engine]]] = {
    "dolt": DoltEngine,
    "postgresql": PostgreSQLEngine,
    "terminusdb": TerminusDBEngine,
}
CHOOSY: Final[Mapping[str, Callable[[], Engine]]] = {"terminusdb": lambda: TerminusDBEngine(any_version=True)}
"""The engines that refuse versions of their server, as they are where the administrator takes the risk of those."""


class PluginError(Exception):
    """An installed engine cannot be used; the message names the entry point. Start-up ends with it."""


class VersionsError(Exception):
    """The administrator allows any version of an engine that refuses none. Start-up ends with it."""


def engines(plugins: Iterable[EntryPoint] | None = None, *, any_version: Collection[str] = ()) -> Mapping[str, Engine]:
    """Return every engine by name; raises PluginError for a plug-in that does not load or bears a taken name.

    ``any_version`` names those that are to run versions that they refuse otherwise; raises VersionsError for one that
    is not in CHOOSY.
    """
    odd = sorted(set(any_version) - set(CHOOSY))
    if odd:
        raise VersionsError(
            f"the engine {odd[0]} refuses no version: any version can be allowed of {', '.join(CHOOSY)}"
        )
    found: dict[str, Engine] = {name: make() for name, make in BUILT_IN.items()}
    found.update({name: CHOOSY[name]() for name in any_version})
    for plugin in entry_points(group=GROUP) if plugins is None else plugins:
        if plugin.name in found:
            raise PluginError(f"the engine {plugin.name} ({plugin.value}) has the name of another one")
        found[plugin.name] = _load(plugin)
    return found


def _load(plugin: EntryPoint) -> Engine:
    try:
        engine: Engine = plugin.load()()
    except Exception as error:
        raise PluginError(f"the engine {plugin.name} ({plugin.value}) does not load: {error!r}") from error
    if engine.name != plugin.name:
        raise PluginError(f"the engine {plugin.name} ({plugin.value}) calls itself {engine.name}")
    return engine
