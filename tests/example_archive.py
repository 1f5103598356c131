"""Archives made by hand, without telemetry: days of light curves and requests, published."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np
import xarray as xr
from example_cubes import make_dataset

from stixflow.archive import Archive, Partition, day_key, draft_partition, open_archive, request_key, store_path
from stixflow.cubes.store import write_store

DAYS = (date(2022, 11, 8), date(2022, 11, 9), date(2022, 11, 11))


def day_of(day: date, **more: object) -> xr.Dataset:
    """Return hourly bins of one day."""
    values: dict[str, object] = {"n_time": 24, "step_s": 3600.0, "seed": day.day} | more
    return make_dataset("ql_lightcurve", start=np.datetime64(day, "ns"), **values)  # type: ignore[arg-type]


def stage(archive: Archive, boxes: Sequence[xr.Dataset], day: date, run_id: str = "R1", **more: object) -> int:
    """Write a store and stage it."""
    attrs = boxes[0].attrs
    key = request_key(attrs["request_id"], attrs["seq_control"]) if "request_id" in attrs else day_key(day)
    path = store_path(attrs["product"], key, day, run_id)
    values: dict[str, object] = {"input_digest": "in", "code_version": "1"} | more
    made = draft_partition(
        write_store(archive.url(path), boxes),
        product=attrs["product"],
        run_id=run_id,
        key=key,
        day=day,
        path=path,
        **values,  # type: ignore[arg-type]
    )
    return archive.catalog.stage(made)


def add(archive: Archive, boxes: Sequence[xr.Dataset], day: date, run_id: str = "R1", **more: object) -> Partition:
    """Write a store and publish it."""
    partition_id = stage(archive, boxes, day, run_id, **more)
    archive.catalog.publish(partition_id)
    return archive.catalog.partition(partition_id)


def with_days(root: Path) -> Archive:
    """Make an archive with the light curves of `DAYS`."""
    made = open_archive(root, create=True)
    for day in DAYS:
        add(made, [day_of(day)], day)
    return made
