"""Objects of somebody else that happen to bear our names."""

from __future__ import annotations

from coppice.kube.resources import RESOURCES


def add_foreign(story, kind, name, namespace="data"):
    body = {
        "PersistentVolumeClaim": {
            "spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "1Gi"}}, "accessModes": []}
        },
        "Secret": {"data": {"key": "dmFsdWU="}},
        "Service": {"spec": {"selector": {"app": "other"}}},
        "NetworkPolicy": {"spec": {"podSelector": {}}},
        "Pod": {
            "spec": {
                "containers": [
                    {
                        "name": "other",
                        "image": "busybox",
                    }
                ],
                "volumes": [],
            }
        },
        "Job": {"spec": {"suspend": True, "template": {"spec": {"containers": []}}}},
        "VolumeSnapshot": {"spec": {"source": {"persistentVolumeClaimName": "other"}}},
    }[kind]
    story.kube.add(
        {
            "apiVersion": RESOURCES[kind].api_version,
            "kind": kind,
            "metadata": {"name": name, "namespace": namespace},
            **body,
        }
    )
