"""The command `coppice csi`: the driver's command line."""

import logging
import signal
from pathlib import Path

import click

from coppice.core.quantities import quantity_bytes
from coppice.csi.catalog import CatalogError
from coppice.csi.pool import PoolError, PoolSettings
from coppice.csi.quota import QuotaMode
from coppice.csi.server import Stop, run
from coppice.csi.settings import DRIVER_NAME, Settings

_SCHEME = "unix://"


def _quantity(text: str) -> int:
    try:
        return quantity_bytes(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command("csi")
@click.option(
    "--endpoint",
    default=f"{_SCHEME}/var/lib/kubelet/plugins/{DRIVER_NAME}/csi.sock",
    show_default=True,
    help="Socket of the driver; the same path on the host.",
)
@click.option("--node-id", envvar="NODE_NAME", required=True, help="Name of the node.  [env: NODE_NAME]")
@click.option(
    "--pool",
    "directory",
    type=click.Path(path_type=Path),
    default=Path("/var/lib/coppice-local"),
    show_default=True,
    help="Directory of the pool.",
)
@click.option(
    "--pool-size",
    type=_quantity,
    default="20Gi",
    show_default=True,
    help="Size of the pool's image, where the directory is not on btrfs; a larger one later lets it grow.",
)
@click.option(
    "--pool-sparse",
    is_flag=True,
    help="Take the image's blocks from the host only as data come. The pool breaks if the host runs out of them.",
)
@click.option(
    "--pool-reserve",
    type=_quantity,
    default="512Mi",
    show_default=True,
    help="Bytes kept free: below that no volume or snapshot is made.",
)
@click.option(
    "--quota",
    type=click.Choice([mode.value for mode in QuotaMode]),
    help="How to count bytes.  [default: simple in an image, otherwise what is on already]",
)
@click.option(
    "--registration-dir",
    type=click.Path(path_type=Path),
    help="The kubelet's plugins_registry; without it the driver does not register.",
)
@click.option("--health-port", type=click.IntRange(1, 65535), help="Port of GET /healthz.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning"]), default="info", show_default=True)
def csi(  # noqa: PLR0913 - one argument per option
    *,
    endpoint: str,
    node_id: str,
    directory: Path,
    pool_size: int,
    pool_sparse: bool,
    pool_reserve: int,
    quota: str | None,
    registration_dir: Path | None,
    health_port: int | None,
    log_level: str,
) -> None:
    """Run the CSI driver of this node: copy-on-write volumes on btrfs."""
    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    settings = Settings(
        node_id=node_id,
        endpoint=Path(endpoint.removeprefix(_SCHEME)),
        pool=PoolSettings(
            directory=directory,
            size=pool_size,
            sparse=pool_sparse,
            reserve=pool_reserve,
            quota=QuotaMode(quota) if quota else None,
        ),
        registration_directory=registration_dir,
        health_port=health_port,
    )
    stop = Stop()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.ask())
    try:
        run(settings, stop)
    except (PoolError, CatalogError, OSError) as error:
        raise click.ClickException(str(error)) from error
    if stop.failed:
        raise click.ClickException("the kubelet refused the driver: see above")
