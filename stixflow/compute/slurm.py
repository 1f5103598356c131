"""Workers as jobs of SLURM, submitted anew when their time is over."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stixflow.compute.arrival import wait_for_worker
from stixflow.compute.processes import worker_environment
from stixflow.compute.profiles import LIFETIME_STAGGER_S, SlurmProfile, not_installed, parse_memory

_KEEP_SECONDS = 20.0
"""How often jobs that have ended are replaced."""


@contextmanager
def open_slurm(profile: SlurmProfile) -> Iterator[Any]:
    """Yield the client of a scheduler here and workers in jobs, which end with the ``with`` block."""
    from distributed import Client

    with slurm_cluster(profile) as cluster:
        cluster.scale(jobs=profile.jobs)
        with _kept(cluster), Client(cluster) as client:
            wait_for_worker(client, profile.wait_seconds, "see `squeue --me`, and what the jobs print (log_directory)")
            yield client


def slurm_cluster(profile: SlurmProfile) -> Any:
    """Return a `SLURMCluster` without jobs yet: ``.job_script()`` is what each of them will run."""
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError as error:
        raise not_installed("slurm", "dask-jobqueue") from error
    exports = [f"export {name}={value}" for name, value in worker_environment().items()]
    scheduler_options = {"dashboard": profile.dashboard is not None, "dashboard_address": profile.dashboard or ":0"}
    return SLURMCluster(
        job_name="stixflow-worker",
        queue=profile.queue,
        account=profile.account,
        cores=profile.workers_per_job,
        processes=profile.workers_per_job,
        memory=f"{parse_memory(profile.memory) * profile.workers_per_job}B",
        walltime=profile.walltime,
        interface=profile.interface,
        local_directory=profile.local_directory,
        log_directory=profile.log_directory,
        job_script_prologue=[*exports, *profile.prologue],
        job_extra_directives=list(profile.directives),
        python=profile.python,
        death_timeout=120,
        worker_extra_args=[
            "--lifetime",
            f"{profile.lifetime_s}s",
            "--lifetime-stagger",
            f"{LIFETIME_STAGGER_S}s",
            "--no-dashboard",
        ],
        scheduler_options=scheduler_options,
        silence_logs=logging.CRITICAL,
    )


@contextmanager
def _kept(cluster: Any) -> Iterator[None]:
    """Replace jobs that have ended, by their walltime or by accident, for the time of a ``with`` block.

    Dask counts a job as there until it is told otherwise, and `adapt` would let go of workers between stages.
    """
    ended = threading.Event()

    def keep() -> None:
        seen: set[str] = set()
        while not ended.wait(_KEEP_SECONDS):
            try:
                cluster.sync(_replace_lost, cluster, seen)
            except Exception:  # the cluster is closing, or sbatch is away for a moment: the next round tries again
                logging.getLogger("stixflow.compute").debug("jobs were not replaced", exc_info=True)

    thread = threading.Thread(target=keep, name="stixflow-keep-jobs", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=60)


async def _replace_lost(cluster: Any, seen: set[str]) -> None:
    """Submit anew every job that had workers and has none any more."""
    alive = {str(worker.name) for worker in cluster.scheduler.workers.values()}
    for name, spec in cluster.worker_spec.items():
        if alive & {f"{name}{suffix}" for suffix in spec.get("group", ("",))}:
            seen.add(name)
        elif name in seen and name in cluster.workers:
            seen.discard(name)
            await cluster.workers.pop(name).close()
    await cluster._correct_state()
