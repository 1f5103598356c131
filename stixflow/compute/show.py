"""What a cluster profile would start, for people to read before it does; and what is there once it did."""

from __future__ import annotations

import shlex
import time
from typing import Any

from stixflow.compute.kubernetes import kubernetes_spec
from stixflow.compute.launch import open_cluster
from stixflow.compute.processes import core_count, scheduler_environment, worker_environment
from stixflow.compute.profiles import AddressProfile, KubernetesProfile, LocalProfile, Profile, SlurmProfile
from stixflow.compute.slurm import slurm_cluster


def show_profile(profile: Profile) -> str:
    """Return what a profile starts: processes, commands, a job script, or a resource of Kubernetes."""
    match profile:
        case LocalProfile():
            count = profile.workers or f"{core_count()}, as many as cores,"
            return f"{count} processes of this machine; threads of each: {profile.threads}; memory: {profile.memory}"
        case AddressProfile():
            return _commands(profile)
        case SlurmProfile():
            with slurm_cluster(profile) as cluster:
                script = cluster.job_script().strip()
            return f"# {profile.jobs} jobs of {profile.workers_per_job} workers:\n{script}"
        case KubernetesProfile():
            import yaml

            return str(yaml.safe_dump(kubernetes_spec(profile), sort_keys=False)).rstrip()


def _commands(profile: AddressProfile) -> str:
    port = profile.address.rpartition(":")[2]
    return "\n".join(
        [
            "# The scheduler, on one machine:",
            *_exports(scheduler_environment(600.0)),
            f"dask scheduler --port {port}",
            "# Workers, one for each core of every machine, from the same environment:",
            *_exports(worker_environment()),
            f"dask worker {profile.address} --nworkers auto --nthreads 1 --memory-limit 3GB",
        ]
    )


def _exports(variables: dict[str, str]) -> list[str]:
    return [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]


def try_profile(profile: Profile) -> dict[str, Any]:
    """Start the workers of a profile, ask each what it is, and end them.

    Returns
    -------
    ``seconds`` until the first worker was there, and ``workers``: host, memory, threads of numerical libraries.
    """
    started = time.perf_counter()
    with open_cluster(cluster=profile) as pool:
        ready = time.perf_counter() - started
        found = pool.ask_workers(_about_here)
    return {"seconds": round(ready, 2), "workers": found}


def _about_here(dask_worker: Any) -> dict[str, Any]:
    import platform
    import socket

    import numpy as np
    from threadpoolctl import threadpool_info

    np.ones((200, 200)) @ np.ones((200, 200))
    return {
        "host": socket.gethostname(),
        "name": str(dask_worker.name),
        "python": platform.python_version(),
        "threads": dask_worker.state.nthreads,
        "memory_bytes": dask_worker.memory_manager.memory_limit,
        "cores": core_count(),
        "blas_threads": max((int(one["num_threads"]) for one in threadpool_info()), default=1),
    }
