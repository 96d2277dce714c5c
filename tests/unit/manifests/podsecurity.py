"""PodSecurity ``restricted`` as rules, one a check of the standard.

https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Spec = Mapping[str, Any]

_VOLUMES = {
    "name",
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def containers_of(spec: Spec) -> list[Spec]:
    return [*spec.get("initContainers", []), *spec["containers"], *spec.get("ephemeralContainers", [])]


def _everywhere(spec: Spec, test: Callable[[Spec, Spec], bool]) -> bool:
    """Whether a test holds of each container's security context, given the Pod's."""
    pod = spec.get("securityContext", {})
    return all(test(container.get("securityContext", {}), pod) for container in containers_of(spec))


def _drops_all(own: Spec, _pod: Spec) -> bool:
    capabilities = own.get("capabilities", {})
    return capabilities.get("drop") == ["ALL"] and set(capabilities.get("add", [])) <= {"NET_BIND_SERVICE"}


def _seccomp(own: Spec, pod: Spec) -> bool:
    profile = own.get("seccompProfile") or pod.get("seccompProfile") or {}
    return profile.get("type") in {"RuntimeDefault", "Localhost"}


_RULES: dict[str, Callable[[Spec], bool]] = {
    "no host namespaces": lambda spec: not any(spec.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")),
    "no privileged containers": lambda spec: _everywhere(spec, lambda own, pod: not own.get("privileged")),
    "no privilege escalation": lambda spec: _everywhere(
        spec, lambda own, pod: own.get("allowPrivilegeEscalation") is False
    ),
    "all capabilities dropped": lambda spec: _everywhere(spec, _drops_all),
    "a seccomp profile": lambda spec: _everywhere(spec, _seccomp),
    "run as non-root": lambda spec: _everywhere(
        spec, lambda own, pod: own.get("runAsNonRoot", pod.get("runAsNonRoot")) is True
    ),
    "no root user": lambda spec: _everywhere(spec, lambda own, pod: own.get("runAsUser", pod.get("runAsUser")) != 0),
    "volume types": lambda spec: all(volume.keys() <= _VOLUMES for volume in spec.get("volumes", [])),
    "no host ports": lambda spec: (
        not [port for container in containers_of(spec) for port in container.get("ports", []) if port.get("hostPort")]
    ),
    "no SELinux, sysctl, proc mount or AppArmor of its own": lambda spec: _everywhere(
        spec,
        lambda own, pod: not {"seLinuxOptions", "sysctls", "procMount", "appArmorProfile"} & {*own, *pod},
    ),
}


def restricted_violations(pod: Mapping[str, Any]) -> list[str]:
    """Return the names of the checks that a Pod does not pass."""
    return [name for name, passes in _RULES.items() if not passes(pod["spec"])]
