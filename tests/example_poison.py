"""Loaded into workers before they start: some items kill them, as input does that crashes a library or fills memory."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import stixflow.jobs  # noqa: F401  # what is replaced must be there

POISON = ("ephemeris", "2022-06-15")
"""Product and key of the partition that no worker survives."""

HUNGER_BYTES = 1 << 30
_ENDURANCE_S = 30.0


def dask_setup(_: object) -> None:
    """Replace the job that makes a partition by one that is not up to two of them."""
    module = sys.modules["stixflow.jobs.build"]
    module.build = _endangered(module.build)  # type: ignore[attr-defined]


def _endangered(build: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def call(job: Any) -> Any:
        poison = os.environ.get("STIXFLOW_TEST_POISON") if (job.product, job.key) == POISON else None
        if poison == "deadly":
            os._exit(1)
        if poison == "hungry":
            hoard = b"\1" * HUNGER_BYTES
            time.sleep(_ENDURANCE_S)  # long enough for the nanny to see it
            del hoard
        return build(job)

    return call
