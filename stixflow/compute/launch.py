"""Start the workers that a cluster profile describes, and stop them again."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from stixflow.compute.pools import Cluster, Pool, Serial
from stixflow.compute.profiles import (
    LIFETIME_STAGGER_S,
    AddressProfile,
    KubernetesProfile,
    LocalProfile,
    Profile,
    SlurmProfile,
    load_profile,
    parse_memory,
)
from stixflow.errors import MissingFile, UsageError

_KEEP_SECONDS = 20.0
"""How often jobs that have ended are replaced."""


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
    with dask.config.set(dask_settings(profile.wait_seconds)), ExitStack() as stack:
        client = _connected(profile, stack)
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


def _connected(profile: Profile, stack: ExitStack) -> Any:
    """Return the client of a cluster; the stack ends both."""
    match profile:
        case LocalProfile():
            return _local(profile, stack)
        case AddressProfile():
            return _joined(profile, stack)
        case SlurmProfile():
            return _slurm(profile, stack)
        case KubernetesProfile():
            return _kubernetes(profile, stack)


def _local(profile: LocalProfile, stack: ExitStack) -> Any:
    from distributed import Client, LocalCluster

    local = stack.enter_context(
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
        )
    )
    return stack.enter_context(Client(local))


def _joined(profile: AddressProfile, stack: ExitStack) -> Any:
    from distributed import Client

    try:
        client = stack.enter_context(Client(profile.address, timeout=profile.wait_seconds))
    except (OSError, TimeoutError) as error:
        raise ConnectionError(
            f"no Dask scheduler answers at {profile.address}. Expected: one within {profile.wait_seconds:g} s. "
            "Do: start it (`dask scheduler`), or correct the address (--scheduler, STIXFLOW_SCHEDULER)"
        ) from error
    _wait_for_worker(client, profile, "start workers: `dask worker ADDRESS --nthreads 1`")
    return client


def _check_versions(client: Any) -> None:
    """Refuse workers that could not read what this process sends them: they would die of it one after the other."""
    from distributed.versions import error_message

    found = client.get_versions(check=False)
    message = error_message(found["scheduler"], found["workers"], found["client"])["warning"]
    differing = [name for name in ("distributed", "dask", "python", "cloudpickle") if f"| {name} " in message]
    if differing:
        raise ConnectionError(
            f"scheduler, workers and this process have different versions of {', '.join(differing)}:\n{message}\n"
            "Do: start them from the same environment or image"
        )
    _check_code(client)


def _check_code(client: Any) -> None:
    from stixflow.provenance import code_version

    def version_there() -> str:
        # By value, not by name: it must run also where there is no stixflow.
        try:
            from stixflow.provenance import code_version

            return code_version()
        except ImportError:
            return "no stixflow"

    here = code_version()
    there = {address: version for address, version in client.run(version_there).items() if version != here}
    if there:
        address, version = next(iter(there.items()))
        raise ConnectionError(
            f"{len(there)} workers run other code, as {address}: {version}. Expected: {here}, as this process. "
            "Do: start them again, from the same environment or image"
        )


def _wait_for_worker(client: Any, profile: Profile, advice: str) -> None:
    try:
        client.wait_for_workers(1, timeout=profile.wait_seconds)
    except TimeoutError as error:
        raise ConnectionError(f"no worker came within {profile.wait_seconds:g} s. Do: {advice}") from error
    _check_versions(client)
    client.register_plugin(_one_thread())


def _one_thread() -> Any:
    """Return what gives workers that were not started from here one thread for numerical libraries, late ones too."""
    from distributed import WorkerPlugin

    environment = {name: value for name, value in _PROCESS_ENVIRONMENT.items() if "THREADS" in name}

    class OneThread(WorkerPlugin):  # type: ignore[misc]
        name = "stixflow-one-thread"

        def setup(self, worker: Any) -> None:  # noqa: ARG002
            from threadpoolctl import threadpool_limits

            os.environ.update(environment)  # for libraries that are loaded later
            threadpool_limits(1)

    return OneThread()


def _slurm(profile: SlurmProfile, stack: ExitStack) -> Any:
    from distributed import Client

    cluster = stack.enter_context(slurm_cluster(profile))
    cluster.scale(jobs=profile.jobs)
    stack.enter_context(_kept(cluster))
    client = stack.enter_context(Client(cluster))
    _wait_for_worker(client, profile, "see `squeue --me`, and what the jobs print (log_directory)")
    return client


def slurm_cluster(profile: SlurmProfile) -> Any:
    """Return a `SLURMCluster` without jobs yet: ``.job_script()`` is what each of them will run."""
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError as error:
        raise _not_installed("slurm", "dask-jobqueue") from error
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


def _kubernetes(profile: KubernetesProfile, stack: ExitStack) -> Any:
    try:
        from dask_kubernetes.operator import KubeCluster
    except ImportError as error:
        raise _not_installed("kubernetes", "dask-kubernetes") from error
    from distributed import Client

    cluster = stack.enter_context(
        KubeCluster(custom_cluster_spec=kubernetes_spec(profile), namespace=profile.namespace, quiet=True)
    )
    client = stack.enter_context(Client(cluster))
    _wait_for_worker(client, profile, f"see `kubectl get pods -l dask.org/cluster-name={profile.name}`")
    return client


def kubernetes_spec(profile: KubernetesProfile) -> dict[str, Any]:
    """Return the `DaskCluster` resource that the Dask operator makes into pods."""
    labels = {"dask.org/cluster-name": profile.name, "dask.org/component": "scheduler"}
    ports = {"tcp-comm": 8786, "http-dashboard": 8787}
    scheduler = _container(
        profile,
        "scheduler",
        ["dask", "scheduler", "--host", "0.0.0.0"],
        memory=profile.scheduler_memory,
        environment=scheduler_environment(profile.wait_seconds),
    )
    scheduler["ports"] = [_port(name, number) for name, number in ports.items()]
    scheduler |= _probes("http-dashboard")
    worker = _container(
        profile,
        "worker",
        [
            *("dask", "worker", "--name", "$(DASK_WORKER_NAME)", "--nthreads", "1"),
            *("--memory-limit", str(parse_memory(profile.memory))),
            *("--dashboard", "--dashboard-address", "8788", "--death-timeout", "120"),
        ],
        memory=profile.memory,
        environment=worker_environment(),
    )
    worker["ports"] = [_port("http-dashboard", 8788)]
    worker |= _probes("http-dashboard")
    return {
        "apiVersion": "kubernetes.dask.org/v1",
        "kind": "DaskCluster",
        "metadata": {"name": profile.name},
        "spec": {
            "idleTimeout": profile.idle_seconds,
            "worker": {"replicas": profile.workers, "spec": _pod(profile, worker)},
            "scheduler": {
                "spec": _pod(profile, scheduler),
                "service": {
                    "type": "ClusterIP",
                    "selector": labels,
                    "ports": [
                        {"name": name, "protocol": "TCP", "port": number, "targetPort": name}
                        for name, number in ports.items()
                    ],
                },
            },
        },
    }


def _container(
    profile: KubernetesProfile, name: str, args: list[str], *, memory: str, environment: dict[str, str]
) -> dict[str, Any]:
    amount = str(parse_memory(memory))
    return {
        "name": name,
        "image": profile.image,
        "args": args,
        "env": [{"name": key, "value": value} for key, value in (environment | profile.environment).items()],
        "envFrom": [{"secretRef": {"name": secret}} for secret in profile.secrets],
        # Memory that is not there cannot be given back: limit and request are the same.
        "resources": {"requests": {"cpu": profile.cpu, "memory": amount}, "limits": {"memory": amount}},
        "volumeMounts": [{"name": claim, "mountPath": path} for claim, path in profile.volumes.items()],
    }


def _port(name: str, number: int) -> dict[str, Any]:
    return {"name": name, "containerPort": number, "protocol": "TCP"}


def _probes(port: str) -> dict[str, Any]:
    probe = {"httpGet": {"port": port, "path": "/health"}, "timeoutSeconds": 10}
    return {
        "readinessProbe": probe | {"periodSeconds": 5},
        # A worker that computes answers late: only what is silent for minutes is started anew.
        "livenessProbe": probe | {"initialDelaySeconds": 30, "periodSeconds": 30, "failureThreshold": 10},
    }


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


def dask_settings(wait_seconds: float) -> dict[str, Any]:
    """Return what differs from Dask's defaults, each for a reason given in docs/decisions.md, "Fan-out"."""
    return {
        **_scheduler_settings(wait_seconds),
        **_WORKER_SETTINGS,
        "distributed.nanny.pre-spawn-environ": dict(_PROCESS_ENVIRONMENT),
        "distributed.admin.log-format": "%(name)s %(levelname)s %(message)s",
        "distributed.logging": {"distributed": "critical"},
    }


def _scheduler_settings(wait_seconds: float) -> dict[str, Any]:
    return {
        "distributed.scheduler.allowed-failures": 0,
        "distributed.scheduler.work-stealing": False,
        # A run whose workers are all gone, and stay so, ends with a message instead of waiting for ever.
        "distributed.scheduler.no-workers-timeout": f"{wait_seconds:g}s",
    }


_WORKER_SETTINGS: dict[str, Any] = {
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.target": False,
}
_PROCESS_ENVIRONMENT = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLOSC_NTHREADS"), "1"),
    # Trimming alone freezes the threshold of mmap at 128 kB: every large temporary would be faulted in anew.
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "MALLOC_MMAP_THRESHOLD_": "33554432",
}


def worker_environment() -> dict[str, str]:
    """Return the variables under which a worker must be started where Dask does not start it from here."""
    return _PROCESS_ENVIRONMENT | _as_variables(_WORKER_SETTINGS)


def scheduler_environment(wait_seconds: float) -> dict[str, str]:
    """Return the variables under which a scheduler must be started where it is not started from here."""
    return _as_variables(_scheduler_settings(wait_seconds))


def _as_variables(settings: dict[str, Any]) -> dict[str, str]:
    return {"DASK_" + name.upper().replace(".", "__").replace("-", "_"): str(value) for name, value in settings.items()}


def _not_installed(extra: str, package: str) -> MissingFile:
    return MissingFile(
        f"the profile needs {package}, which is not installed",
        expected=f"the extra {extra}",
        advice=f'pip install "stixflow[{extra}]"',
    )


def _check_report(report: str | Path | None) -> None:
    """Find out before the work, not after it, that no report could be written."""
    if report is None:
        return
    from importlib.util import find_spec

    if find_spec("bokeh") is None:
        raise _not_installed("dashboard", "bokeh")
    folder = Path(report).resolve().parent
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder} for the report", expected="one", advice="make it")


def core_count() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
