"""Start the workers that a cluster profile describes, and stop them again."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from stixflow.compute.arrival import wait_for_worker
from stixflow.compute.kubernetes import open_kubernetes
from stixflow.compute.pools import Cluster, Pool, Serial
from stixflow.compute.processes import core_count, dask_settings
from stixflow.compute.profiles import (
    AddressProfile,
    KubernetesProfile,
    LocalProfile,
    Profile,
    SlurmProfile,
    load_profile,
    not_installed,
)
from stixflow.compute.slurm import open_slurm
from stixflow.errors import UsageError


def open_engine(
    *,
    serial: bool = False,
    workers: int | None = None,
    cluster: str | Path | Profile = "local",
    scheduler: str | None = None,
    memory_limit: str | int | None = None,
    report: str | Path | None = None,
) -> AbstractContextManager[Pool]:
    """Return what computes, as settings name it: this process if `serial`, else `open_cluster` of all others."""
    if serial:
        return nullcontext(Serial())
    return open_cluster(workers, cluster=cluster, memory_limit=memory_limit, scheduler=scheduler, report=report)


@contextmanager
def open_cluster(
    n_workers: int | None = None,
    *,
    cluster: str | Path | Profile = "local",
    memory_limit: str | int | None = None,
    scheduler: str | None = None,
    report: str | Path | None = None,
) -> Iterator[Cluster]:
    """Start the workers of a cluster profile, or join a running `scheduler`, for a ``with`` block.

    Parameters
    ----------
    n_workers
        Processes in all, instead of those of the profile; on this machine by default (None or 0) one for each core.
    cluster
        Name of a profile that comes along (`profile_names`), path of a TOML file, or a profile.
    memory_limit
        Of one worker, as ``"2GB"`` or bytes, instead of that of the profile; a worker beyond 95 % of it is killed and
        its batch split.
    scheduler
        Address of a running Dask scheduler, as ``tcp://host:8786``: profile ``address``.
    report
        HTML file that is written at the end: where the time of tasks, workers and scheduler went. Needs bokeh.

    Raises
    ------
    UsageError, MissingFile
        If the profile makes no sense, or needs a package that is not installed.
    ConnectionError
        If no worker came in the time that the profile gives them, or the scheduler does not answer.
    """
    profile = _profile(cluster, n_workers, memory_limit, scheduler)
    _check_report(report)
    import dask
    import distributed  # noqa: F401  # brings its defaults: what was set before them would take them along when it is unset

    for name in ("distributed", "distributed.client", "distributed.comm", "distributed.core"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what goes wrong is told by this package
    with dask.config.set(dask_settings(profile.wait_seconds, profiled=report is not None)), ExitStack() as stack:
        client = stack.enter_context(_opened(profile))
        if report is not None:
            from distributed import performance_report

            stack.enter_context(performance_report(filename=str(report)))
        yield Cluster(client)


def _profile(
    cluster: str | Path | Profile, n_workers: int | None, memory_limit: str | int | None, scheduler: str | None
) -> Profile:
    if isinstance(cluster, LocalProfile | AddressProfile | SlurmProfile | KubernetesProfile):
        return cluster
    if scheduler is not None and str(cluster) == "local":
        cluster = "address"
    memory = f"{memory_limit}B" if isinstance(memory_limit, int) else memory_limit
    memory = None if memory == "auto" else memory  # what the profile says
    return load_profile(cluster, workers=n_workers or None, memory=memory, address=scheduler)


def _opened(profile: Profile) -> AbstractContextManager[Any]:
    """Return the client of a cluster, which ends with it."""
    match profile:
        case LocalProfile():
            return _open_local(profile)
        case AddressProfile():
            return _join(profile)
        case SlurmProfile():
            return open_slurm(profile)
        case KubernetesProfile():
            return open_kubernetes(profile)


@contextmanager
def _open_local(profile: LocalProfile) -> Iterator[Any]:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=profile.workers or core_count(),
            threads_per_worker=profile.threads,
            processes=True,
            host="127.0.0.1",
            # Without an address Dask takes 8787, and warns where another cluster has it.
            dashboard_address=profile.dashboard or "127.0.0.1:0",
            scheduler_kwargs={"dashboard": profile.dashboard is not None},
            memory_limit=profile.memory,
            silence_logs=logging.CRITICAL,
        ) as local,
        Client(local) as client,
    ):
        yield client


@contextmanager
def _join(profile: AddressProfile) -> Iterator[Any]:
    from distributed import Client

    try:
        connected = Client(profile.address, timeout=profile.wait_seconds)
    except (OSError, TimeoutError) as error:
        raise ConnectionError(
            f"no Dask scheduler answers at {profile.address}. Expected: one within {profile.wait_seconds:g} s. "
            "Do: start it (`dask scheduler`), or correct the address (--scheduler, STIXFLOW_SCHEDULER)"
        ) from error
    with connected as client:
        wait_for_worker(client, profile.wait_seconds, "start workers: `dask worker ADDRESS --nthreads 1`")
        yield client


def _check_report(report: str | Path | None) -> None:
    """Find out before the work, not after it, that no report could be written."""
    if report is None:
        return
    from importlib.util import find_spec

    if find_spec("bokeh") is None:
        raise not_installed("dashboard", "bokeh")
    folder = Path(report).resolve().parent
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder} for the report", expected="one", advice="make it")
