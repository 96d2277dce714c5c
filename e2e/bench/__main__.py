"""The command line: `python -m e2e.bench`. Tables go to standard output, progress to standard error.

Without a command, all of them: clones of several sizes in turns, many at once, a database at work, changes that come
back, pull requests, what forges are asked, and the operator alone.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from contextlib import AsyncExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2e.bench import changes, ends, forge, pull_requests, scale, source, wake
from e2e.bench import clone as clones
from e2e.bench import many as batches
from e2e.bench.api import BenchError, connect
from e2e.bench.figures import Machine, say, write_raw
from e2e.bench.lab import describe, open_lab
from e2e.bench.subjects import ENGINES, MEGABYTES, rows_of, subject
from e2e.harness import shell
from e2e.harness.cluster import ClusterError
from e2e.harness.settings import SettingsError, from_environment
from e2e.install import installed
from e2e.suite import previews
from e2e.suite.kube import Kube

if TYPE_CHECKING:
    from collections.abc import Sequence

EVERYTHING = (
    ("clone", "--size", "10MB", "1GB"),
    ("clone", "--engine", "postgresql", "--size", "1GB", "5GB"),
    ("many",),
    ("many", "--engine", "postgresql"),
    ("source",),
    ("changes",),
    ("changes", "--engine", "postgresql"),
    ("pull-requests",),
    ("ends",),
    ("wake",),
    ("forge",),
    ("operator",),
)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        asyncio.run(options.command(options))
    except (BenchError, ClusterError, SettingsError, shell.CommandError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m e2e.bench", description=__doc__)
    parser.set_defaults(command=_everything)
    commands = parser.add_subparsers()
    one = commands.add_parser("clone", help="one clone at a time, beside the same by hand")
    one.add_argument("--runs", type=int, default=15)
    one.add_argument("--size", nargs="+", choices=MEGABYTES, default=["10MB"], help="several take turns")
    one.add_argument("--engine", choices=ENGINES, default="dolt")
    one.add_argument("--restores", type=int, default=3, help="in how many runs all data are also copied")
    one.add_argument("--keep", action="store_true")
    one.add_argument("--only", nargs="+", choices=clones.VARIANTS)
    one.set_defaults(command=_clone)
    many = commands.add_parser("many", help="many clones at once, beside the same by hand; what each takes")
    many.add_argument("--count", type=int, default=20)
    many.add_argument("--runs", type=int, default=3)
    many.add_argument("--engine", choices=ENGINES, default="dolt")
    many.add_argument("--size", choices=MEGABYTES, default="10MB")
    many.add_argument("--keep", action="store_true")
    many.add_argument("--only", nargs="+", default=list(batches.VARIANTS), choices=batches.VARIANTS)
    many.set_defaults(command=_many)
    work = commands.add_parser("source", help="what a PostgreSQL at work feels of snapshots")
    work.add_argument("--runs", type=int, default=15)
    work.add_argument("--size", choices=MEGABYTES, default="1GB")
    work.add_argument("--keep", action="store_true")
    work.set_defaults(command=_source)
    back = commands.add_parser("changes", help="a change of some rows comes back, beside the same by hand")
    back.add_argument("--runs", type=int, default=15)
    back.add_argument("--rows", type=int, default=1_000_000)
    back.add_argument("--changed", type=int, default=1000)
    back.add_argument("--engine", choices=changes.ENGINES, default="dolt")
    back.add_argument("--keep", action="store_true")
    back.set_defaults(command=_changes)
    opened = commands.add_parser("pull-requests", help="previews made by Argo CD, beside the same by kubectl")
    opened.add_argument("--runs", type=int, default=15)
    opened.set_defaults(command=_pull_requests)
    over = commands.add_parser("ends", help="a clone ends, beside the same deleted by hand")
    over.add_argument("--runs", type=int, default=15)
    over.add_argument("--engine", choices=ENGINES, default="dolt")
    over.add_argument("--keep", action="store_true")
    over.set_defaults(command=_ends)
    naps = commands.add_parser("wake", help="a clone that sleeps is woken, beside a Pod made by hand")
    naps.add_argument("--runs", type=int, default=15)
    naps.add_argument("--engine", choices=ENGINES, default="dolt")
    naps.add_argument("--keep", action="store_true")
    naps.set_defaults(command=_wake)
    asked = commands.add_parser("forge", help="what a forge is asked in an hour; needs no cluster")
    asked.set_defaults(command=_forge)
    alone = commands.add_parser("operator", help="the operator alone, with thousands of clones")
    alone.add_argument("--clones", type=int, default=3000)
    alone.set_defaults(command=_operator)
    return parser


async def _everything(_: argparse.Namespace) -> None:
    for line in EVERYTHING:
        say(f"python -m e2e.bench {' '.join(line)}")
        options = _parser().parse_args(line)
        await options.command(options)


async def _clone(options: argparse.Namespace) -> None:
    cluster = installed()
    machine = Machine.start()
    async with AsyncExitStack() as stack:
        labs = {
            size: clones.Clones(
                await stack.enter_async_context(open_lab(cluster, subject(options.engine, size), keep=options.keep)),
                options.only or clones.variants_of(options.engine),
                options.restores,
            )
            for size in dict.fromkeys(options.size)
        }
        await clones.alternate(list(labs.values()), options.runs)
        conditions = {size: f"{await describe(run.lab)}; {machine.describe()}" for size, run in labs.items()}
    laps = {size: run.laps for size, run in labs.items()}
    for size, found in laps.items():
        _tell(f"clone-{options.engine}-{size}", clones.report(found), conditions[size], laps=found)
    if len(laps) > 1:
        print(clones.compare_sizes(laps))


async def _many(options: argparse.Namespace) -> None:
    cluster = installed()
    machine = Machine.start()
    async with open_lab(cluster, subject(options.engine, options.size), keep=options.keep) as lab:
        made = await batches.Many(lab, options.count).run(options.runs, variants=options.only)
        conditions = f"{await describe(lab)}; {machine.describe()}"
    results = {variant: [asdict(batch) for batch in found] for variant, found in made.items()}
    _tell("many", batches.report(made), conditions, batches=results)


async def _source(options: argparse.Namespace) -> None:
    cluster = installed()
    machine = Machine.start()
    async with open_lab(cluster, subject("postgresql", options.size), keep=options.keep) as lab:
        windows = await source.measure(lab, options.runs)
        conditions = f"{await describe(lab)}; {machine.describe()}"
    results = {kind: [asdict(window) for window in found] for kind, found in windows.items()}
    _tell("source", source.report(windows), conditions, windows=results)


async def _changes(options: argparse.Namespace) -> None:
    cluster = installed()
    machine = Machine.start()
    async with open_lab(cluster, rows_of(options.engine, options.rows), keep=options.keep) as lab:
        made = await changes.Changes(lab, options.rows, options.changed).run(options.runs)
        conditions = f"{await describe(lab)}; {machine.describe()}"
    report = changes.report(made, options.rows, options.changed)
    _tell(f"changes-{options.engine}", report, conditions, runs=[asdict(run) for run in made])


async def _pull_requests(options: argparse.Namespace) -> None:
    cluster = installed()
    machine, shown = Machine.start(), pull_requests.NotedForge()
    with (
        tempfile.TemporaryDirectory() as folder,
        previews.installed(Kube(cluster), Path(folder), shown, pull_requests.OWNERS) as (argocd, git),
    ):
        async with connect(cluster.kubeconfig) as api:
            made = await pull_requests.PullRequests(api, argocd, git, shown).run(options.runs)
            version = (await api.raw("/version"))["gitVersion"]
    conditions = f"the quickstart's Dolt store, {cluster.profile} profile, Kubernetes {version}; {machine.describe()}"
    results = {variant: [asdict(run) for run in found] for variant, found in made.items()}
    _tell("pull-requests", pull_requests.report(made), conditions, runs=results)


async def _ends(options: argparse.Namespace) -> None:
    cluster = installed()
    machine = Machine.start()
    async with open_lab(cluster, subject(options.engine, "10MB"), keep=options.keep) as lab:
        made = await ends.Ends(lab).run(options.runs)
        conditions = f"{await describe(lab)}; {machine.describe()}"
    _tell("ends", ends.report(made), conditions, runs=[asdict(run) for run in made])


async def _wake(options: argparse.Namespace) -> None:
    cluster = installed()
    machine = Machine.start()
    with wake.sleepy(Kube(cluster)):
        async with open_lab(cluster, subject(options.engine, "10MB"), keep=options.keep) as lab:
            made = await wake.Naps(lab).run(options.runs)
            conditions = f"{await describe(lab)}; {machine.describe()}"
    _tell("wake", wake.report(made), conditions, runs=[asdict(run) for run in made])


async def _forge(_: argparse.Namespace) -> None:
    machine = Machine.start()
    lines = await forge.run()
    _tell("forge", forge.report(lines), machine.describe(), hours=[asdict(line) for line in lines])


async def _operator(options: argparse.Namespace) -> None:
    settings = from_environment(os.environ)
    machine = Machine.start()
    phases = await scale.run(settings, options.clones)
    report = scale.report(options.clones, phases)
    _tell("operator", report, machine.describe(), phases=[asdict(phase) for phase in phases])


def _tell(name: str, report: str, conditions: str, **results: Any) -> None:
    """Keep what was measured, and print what it says."""
    raw = write_raw(from_environment(os.environ), name, {"conditions": conditions, **results})
    print(f"{report}\n{conditions}\nraw results: {raw}")


if __name__ == "__main__":
    sys.exit(main())
