"""Names of what is made for a store."""

from __future__ import annotations

from coppice.core.names import child


def claim_name(store: str) -> str:
    """Return the name of a store's claim."""
    return child(store, "data")


def admin_secret_name(store: str) -> str:
    """Return the name of the Secret that opens a store's server to the operator."""
    return child(store, "admin")


def binding_name(store: str) -> str:
    """Return the name of the Secret for apps in the store's own namespace."""
    return child(store, "binding")


def server_pod_name(store: str) -> str:
    """Return the name of the Pod of a store's server."""
    return child(store, "server")


def default_database(store: str) -> str:
    """Return the database that is made where neither the store nor its load names one."""
    return store.replace("-", "_")
