"""What covers a moment: a row for each partition, flare and image, with the call of `Archive` that opens it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from stixflow.archive.catalog import Catalog
from stixflow.archive.entries import Partition


def at_moment(catalog: Catalog, moment: np.datetime64) -> list[dict[str, object]]:
    """Return `what`, `name`, `start`, `stop`, `detail` and `opened_by` of everything that covers a moment."""
    after = moment + np.timedelta64(1, "ns")
    rows = [_of_partition(item) for item in catalog.partitions(start=moment, stop=after)]
    rows += [_of_flare(row) for row in catalog.flares(at=moment)]
    return rows + [_of_image(row) for row in catalog.images(at=moment)]


def _of_partition(item: Partition) -> dict[str, object]:
    missing = "" if item.complete else f", incomplete: {item.missing}"
    row = {"what": item.product, "name": item.key, "start": item.start, "stop": item.stop}
    detail = f"{item.n_time} bins" + (f" in {item.boxes} boxes" if item.boxes > 1 else "")
    return row | {"detail": f"{detail}, {item.counts_sum} counts{missing}", "opened_by": _opened_by(item)}


def _opened_by(item: Partition) -> str:
    if item.product == "cal_spectrum":
        return f"archive.calibration({item.key!r})"
    if item.request_id is None:
        return f"archive.cube({item.product!r}, {item.key!r}, {str(np.datetime64(item.day) + 1)!r})"
    method = {"sci_pixel_sums": "pixels"}.get(item.product, item.product.removeprefix("sci_"))
    return f"archive.{method}({item.request_id}, seq_control={item.seq_control})"


def _of_flare(row: Mapping[str, Any]) -> dict[str, object]:
    known = {"class": row.get("goes_class"), "peak": f"{row['peak_counts']:g} counts"}
    detail = ", ".join(f"{name} {value}" for name, value in known.items() if value)
    times = {"start": row["start"], "stop": row["stop"]}
    opened = f"archive.images({row['flare_id']!r})"
    return {"what": "flare", "name": row["flare_id"], **times, "detail": detail, "opened_by": opened}


def _of_image(row: Mapping[str, Any]) -> dict[str, object]:
    detail = f"{row['method']}, {row['energy_low']:g}-{row['energy_high']:g} keV, flare {row['flare_id']}"
    times = {"start": row["start"], "stop": row["stop"]}
    return {
        "what": "image", "name": row["image_id"], **times, "detail": detail,
        "opened_by": f"archive.map({row['image_id']!r})",
    }  # fmt: skip
