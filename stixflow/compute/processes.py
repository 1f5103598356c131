"""What schedulers and workers are told, wherever they run: settings of Dask, threads of libraries, use of memory."""

from __future__ import annotations

import os
from typing import Any

_PROFILE = "distributed.worker.profile.enabled"
_WORKER_SETTINGS: dict[str, Any] = {
    _PROFILE: False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.target": False,
}
PROCESS_ENVIRONMENT = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLOSC_NTHREADS"), "1"),
    # Trimming alone freezes the threshold of mmap at 128 kB: every large temporary would be faulted in anew.
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "MALLOC_MMAP_THRESHOLD_": "33554432",
}
"""Variables of every process that computes."""


def dask_settings(wait_seconds: float, *, profiled: bool = False) -> dict[str, Any]:
    """Return what differs from Dask's defaults, each for a reason given in docs/decisions.md, "Fan-out".

    Parameters
    ----------
    wait_seconds
        How long a run waits for workers.
    profiled
        Workers look a hundred times a second at what they do, for a report.
    """
    return {
        **_scheduler_settings(wait_seconds),
        **_WORKER_SETTINGS,
        _PROFILE: profiled,
        "distributed.nanny.pre-spawn-environ": dict(PROCESS_ENVIRONMENT),
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


def worker_environment() -> dict[str, str]:
    """Return the variables under which a worker must be started where Dask does not start it from here."""
    return PROCESS_ENVIRONMENT | _as_variables(_WORKER_SETTINGS)


def scheduler_environment(wait_seconds: float) -> dict[str, str]:
    """Return the variables under which a scheduler must be started where it is not started from here."""
    return _as_variables(_scheduler_settings(wait_seconds))


def _as_variables(settings: dict[str, Any]) -> dict[str, str]:
    return {"DASK_" + name.upper().replace(".", "__").replace("-", "_"): str(value) for name, value in settings.items()}


def core_count() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
