"""``coppice operator``: puts the parts together and runs the operator."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING, Any

import click

from coppice.engines.registry import PluginError, VersionsError, engines
from coppice.forges.book import Book
from coppice.kube.lease import LeaseLostError
from coppice.kube.login import LoginError
from coppice.kube.reach import is_reached
from coppice.manifests.pod import Resources
from coppice.reconcile.databranch import DataBranchReconciler
from coppice.reconcile.datachangerequest import DataChangeRequestReconciler
from coppice.reconcile.dataclone import DataCloneReconciler
from coppice.reconcile.datagrant import DataGrantReconciler
from coppice.reconcile.datareview import DataReviewReconciler
from coppice.reconcile.datasnapshot import DataSnapshotReconciler
from coppice.reconcile.datastore import DataStoreReconciler
from coppice.reconcile.environment import Environment
from coppice.runtime import logs
from coppice.runtime.app import run_operator
from coppice.runtime.settings import Settings, SettingsError, read_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coppice.core.pullrequests import Forges
    from coppice.engines.base import Engine
    from coppice.runtime.controller import Reconciler

logger = logging.getLogger(__name__)


@click.command("operator")
def operator() -> None:
    """Run the operator until it is told to stop. Settings are environment variables, see the installation guide."""
    try:
        settings = read_settings()
        available = engines(any_version=settings.any_version)
    except (SettingsError, PluginError, VersionsError) as error:
        raise click.ClickException(str(error)) from error
    logs.set_up(settings.log_level)
    try:
        asyncio.run(_run(settings, available))
    except LoginError as error:
        raise click.ClickException(str(error)) from error


async def _run(settings: Settings, available: Mapping[str, Engine]) -> None:
    try:
        forges = Book(settings.forges)
        reconcilers = build_reconcilers(settings, available, forges)
        await run_operator(settings, reconcilers=reconcilers, engines=available, forges=forges)
    except LeaseLostError as error:
        logger.error("%s: ending at once", error)  # noqa: TRY400 - no bug
        # Another replica may lead by now: nothing here may get the chance to finish what it was doing.
        os._exit(1)


def build_reconcilers(settings: Settings, available: Mapping[str, Engine], forges: Forges) -> list[Reconciler[Any]]:
    """Return the reconciler of every kind, as the administrator has set them up."""
    environment = Environment(
        engines=available,
        images=settings.images,
        tls_image=settings.tls_image,
        operator_namespace=settings.namespace,
        service_account=settings.service_account,
        server=Resources(memory=settings.server_memory, cpu=settings.server_cpu),
        idle=settings.lease_idle,
        longest=settings.lease_max,
        undo=settings.undo,
        reaches=is_reached,
        forges=forges,
        sleep=settings.sleep,
        warning=settings.lease_warning,
        most={"memory": settings.clone_memory, "cpu": settings.clone_cpu},
    )
    return [
        DataStoreReconciler(environment),
        DataGrantReconciler(environment),
        DataSnapshotReconciler(environment),
        DataBranchReconciler(environment),
        DataCloneReconciler(environment),
        DataChangeRequestReconciler(environment),
        DataReviewReconciler(environment),
    ]
