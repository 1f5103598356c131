"""Scheduler and workers as pods of Kubernetes, made by the Dask operator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from stixflow.compute.arrival import wait_for_worker
from stixflow.compute.processes import scheduler_environment, worker_environment
from stixflow.compute.profiles import KubernetesProfile, not_installed, parse_memory

_DASHBOARD = "http-dashboard"
_SCHEDULER_PORTS = {"tcp-comm": 8786, _DASHBOARD: 8787}


@contextmanager
def open_kubernetes(profile: KubernetesProfile) -> Iterator[Any]:
    """Yield the client of a scheduler and workers in pods, which end with the ``with`` block."""
    try:
        from dask_kubernetes.operator import KubeCluster
    except ImportError as error:
        raise not_installed("kubernetes", "dask-kubernetes") from error
    from distributed import Client

    advice = f"see `kubectl get pods -l dask.org/cluster-name={profile.name}`"
    with (
        KubeCluster(custom_cluster_spec=kubernetes_spec(profile), namespace=profile.namespace, quiet=True) as cluster,
        Client(cluster) as client,
    ):
        wait_for_worker(client, profile.wait_seconds, advice)
        yield client


def kubernetes_spec(profile: KubernetesProfile) -> dict[str, Any]:
    """Return the `DaskCluster` resource that the Dask operator makes into pods."""
    return {
        "apiVersion": "kubernetes.dask.org/v1",
        "kind": "DaskCluster",
        "metadata": {"name": profile.name},
        "spec": {
            "idleTimeout": profile.idle_seconds,
            "worker": {"replicas": profile.workers, "spec": _pod(profile, _worker(profile))},
            "scheduler": {"spec": _pod(profile, _scheduler(profile)), "service": _service(profile)},
        },
    }


def _scheduler(profile: KubernetesProfile) -> dict[str, Any]:
    return _container(
        profile,
        "scheduler",
        ["dask", "scheduler", "--host", "0.0.0.0"],
        memory=profile.scheduler_memory,
        environment=scheduler_environment(profile.wait_seconds),
        ports=_SCHEDULER_PORTS,
    )


def _worker(profile: KubernetesProfile) -> dict[str, Any]:
    port = 8788
    return _container(
        profile,
        "worker",
        [
            *("dask", "worker", "--name", "$(DASK_WORKER_NAME)", "--nthreads", "1"),
            *("--memory-limit", str(parse_memory(profile.memory))),
            *("--dashboard", "--dashboard-address", str(port), "--death-timeout", "120"),
        ],
        memory=profile.memory,
        environment=worker_environment(),
        ports={_DASHBOARD: port},
    )


def _service(profile: KubernetesProfile) -> dict[str, Any]:
    return {
        "type": "ClusterIP",
        "selector": {"dask.org/cluster-name": profile.name, "dask.org/component": "scheduler"},
        "ports": [
            {"name": name, "protocol": "TCP", "port": number, "targetPort": name}
            for name, number in _SCHEDULER_PORTS.items()
        ],
    }


def _container(
    profile: KubernetesProfile,
    name: str,
    args: list[str],
    *,
    memory: str,
    environment: Mapping[str, str],
    ports: Mapping[str, int],
) -> dict[str, Any]:
    amount = str(parse_memory(memory))
    return {
        "name": name,
        "image": profile.image,
        "args": args,
        "env": [{"name": key, "value": value} for key, value in {**environment, **profile.environment}.items()],
        "envFrom": [{"secretRef": {"name": secret}} for secret in profile.secrets],
        # Memory that is not there cannot be given back: limit and request are the same.
        "resources": {"requests": {"cpu": profile.cpu, "memory": amount}, "limits": {"memory": amount}},
        "volumeMounts": [{"name": claim, "mountPath": path} for claim, path in profile.volumes.items()],
        "ports": [{"name": key, "containerPort": number, "protocol": "TCP"} for key, number in ports.items()],
        "readinessProbe": _probe(periodSeconds=5),
        # A worker that computes answers late: only what is silent for minutes is started anew.
        "livenessProbe": _probe(initialDelaySeconds=30, periodSeconds=30, failureThreshold=10),
    }


def _probe(**when: int) -> dict[str, Any]:
    return {"httpGet": {"port": _DASHBOARD, "path": "/health"}, "timeoutSeconds": 10, **when}


def _pod(profile: KubernetesProfile, container: dict[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = {
        "containers": [container],
        "volumes": [{"name": claim, "persistentVolumeClaim": {"claimName": claim}} for claim in profile.volumes],
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "fsGroup": 1000},
    }
    if profile.service_account:
        pod["serviceAccountName"] = profile.service_account
    if profile.node_selector:
        pod["nodeSelector"] = dict(profile.node_selector)
    return pod
