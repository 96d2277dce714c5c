"""What the environment says about the cluster, read once: every other module takes it as a value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, cast, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping

Provider = Literal["existing", "stock", "offline"]
Profile = Literal["fast", "stock"]

CHECKOUT: Final = Path(__file__).resolve().parents[2]
CLUSTER_NAME: Final = "coppice"
LOCAL_CLASS: Final = "coppice-local"


class SettingsError(ValueError):
    """A variable of the environment has a value that means nothing; the message names it and the values that do."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The variables README.md describes; None means "decide yourself"."""

    cache: Path
    provider: Provider | None = None
    profile: Profile | None = None
    kubeconfig: Path | None = None
    node_image: str | None = None
    load_image_command: str | None = None
    terminusdb_image: str | None = None
    storage_class: str = LOCAL_CLASS
    snapshot_class: str = LOCAL_CLASS

    @property
    def state(self) -> Path:
        """Everything of a running cluster; gone after `down`."""
        return self.cache / "cluster"

    @property
    def bin(self) -> Path:
        """Built programs, one directory for each content hash."""
        return self.cache / "bin"

    @property
    def rootfs(self) -> Path:
        """Debian root file systems as tar archives, one for each content hash."""
        return self.cache / "rootfs"

    @property
    def engine(self) -> Path:
        """The private Docker engine's images; kept between clusters."""
        return self.cache / "engine"

    @property
    def scratch(self) -> Path:
        """Half-made results; renamed into their place when whole."""
        return self.cache / "scratch"


def from_environment(environ: Mapping[str, str]) -> Settings:
    """Read the COPPICE_* variables; an empty variable counts as absent. Raises SettingsError."""

    def path(name: str) -> Path | None:
        value = environ.get(name)
        return Path(value).expanduser().absolute() if value else None

    cache_home = path("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Settings(
        cache=path("COPPICE_CACHE") or cache_home / "coppice",
        provider=cast("Provider | None", _one_of(environ, "COPPICE_E2E_PROVIDER", get_args(Provider))),
        profile=cast("Profile | None", _one_of(environ, "COPPICE_E2E_PROFILE", get_args(Profile))),
        kubeconfig=path("COPPICE_E2E_KUBECONFIG"),
        node_image=environ.get("COPPICE_E2E_NODE_IMAGE") or None,
        load_image_command=environ.get("COPPICE_E2E_LOAD_IMAGE") or None,
        terminusdb_image=environ.get("COPPICE_TERMINUSDB_IMAGE") or None,
        storage_class=environ.get("COPPICE_E2E_STORAGE_CLASS") or LOCAL_CLASS,
        snapshot_class=environ.get("COPPICE_E2E_SNAPSHOT_CLASS") or LOCAL_CLASS,
    )


def _one_of(environ: Mapping[str, str], name: str, allowed: tuple[str, ...]) -> str | None:
    value = environ.get(name) or None
    if value is not None and value not in allowed:
        raise SettingsError(f"{name}={value}: must be one of {', '.join(allowed)}")
    return value
