"""Which stores answer what an analyst asks for, opened as Datasets; where none does, what there is instead."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from itertools import pairwise

import numpy as np
import xarray as xr

from stixflow.archive.catalog import Catalog
from stixflow.archive.entries import Partition
from stixflow.archive.layout import join_url
from stixflow.archive.months import stores_of
from stixflow.cubes.model import PRODUCTS
from stixflow.cubes.store import open_joined, open_store
from stixflow.errors import NotFound, StoreError, UsageError
from stixflow.time import TimeRange, iso

# By time --------------------------------------------------------------------------------------------------------------


def open_span(catalog: Catalog, root: str, product: str, span: TimeRange) -> xr.Dataset:
    """Return the bins of a day product whose centre lies in a span, in order of time.

    Raises
    ------
    UsageError
        If it is no product of days, or its energy bins change within the span.
    NotFound
        If nothing is published there; the message says what is.
    """
    _check_day_product(product)
    found = catalog.partitions(product, start=span.start, stop=span.stop)
    if not found:
        raise _nothing(catalog, product, span)
    _check_same_axes(found)
    dataset = _open_days(catalog, root, found)
    first, last = np.searchsorted(dataset["time"].values, np.array([span.start, span.stop]))
    if first == last:
        raise _nothing(catalog, product, span)
    return dataset if last - first == dataset.sizes["time"] else dataset.isel(time=slice(int(first), int(last)))


def _open_days(catalog: Catalog, root: str, found: Sequence[Partition]) -> xr.Dataset:
    days = [(join_url(root, item.path), item.digest) for item in found]
    if len(days) == 1:
        return open_store(days[0][0], digest=days[0][1])
    joined = [(join_url(root, path), digest) for path, digest in stores_of(catalog, root, found)]
    try:
        return open_joined(joined)
    except StoreError:
        # A joined month may be damaged or just have been replaced; the days are the truth.
        return open_joined(days)


def _check_day_product(product: str) -> None:
    known = [name for name, item in PRODUCTS.items() if item.partition == "day"]
    if product not in known:
        raise UsageError(f"{product!r} is not a day product", expected=", ".join(known), advice="correct it")


def _check_same_axes(found: Sequence[Partition]) -> None:
    for before, after in pairwise(found):
        # Where data models differ, it is asked of the stores whether what both have means the same.
        if before.axes != after.axes and before.data_model_version == after.data_model_version:
            raise UsageError(
                f"the energy bins of {after.product} change between {before.key} and {after.key}",
                expected="a span with one set of bins",
                advice=f"ask for the spans before and from {after.key} apart",
            )


def _nothing(catalog: Catalog, product: str, span: TimeRange) -> NotFound:
    held = catalog.partitions(product)
    what = f"published are {_days_text([item.day for item in held])}" if held else "nothing of it is published"
    return NotFound(
        f"no {product} in {span}: {what}",
        expected="a span with data",
        advice="ingest and process it, or ask another",
    )


def _days_text(days: Sequence[date]) -> str:
    """Write days as runs: ``2021-06-01 to 2021-06-06, 2021-06-09``; the last eight of them."""
    numbers = np.unique(np.array(days, dtype="datetime64[D]"))
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers).astype(int) > 1) + 1)
    texts = [str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs]
    return (f"{len(texts) - 8} earlier spans, " if len(texts) > 8 else "") + ", ".join(texts[-8:])


# By name --------------------------------------------------------------------------------------------------------------


def open_request(
    catalog: Catalog, root: str, products: Sequence[str], request_id: int, *, box: int | None, seq_control: int | None
) -> xr.Dataset:
    """Return the Dataset of one box of one answer to a request; either may be None where there is one.

    Raises
    ------
    NotFound
        If the request is not there.
    UsageError
        If there are several boxes or answers and none was chosen; the message lists them.
    """
    found = catalog.partitions(products, request_id=int(request_id))
    chosen = [item for item in found if seq_control in (None, item.seq_control)]
    if not chosen:
        raise _no_request(catalog, products[0], request_id, found)
    if len(chosen) > 1:
        raise UsageError(
            f"the request {request_id} was answered {len(chosen)} times: "
            + ", ".join(f"seq_control={item.seq_control} from {iso(item.start)}" for item in chosen),
            expected="one answer",
            advice="choose one with seq_control=",
        )
    if box is None and chosen[0].boxes > 1:
        raise UsageError(
            f"the request {request_id} has {chosen[0].boxes} boxes: " + "; ".join(_describe_boxes(root, chosen[0])),
            expected="one box",
            advice="choose one with box=",
        )
    return open_store(join_url(root, chosen[0].path), box or 0, digest=chosen[0].digest)


def _describe_boxes(root: str, item: Partition) -> list[str]:
    texts = []
    for box in range(item.boxes):
        dataset = open_store(join_url(root, item.path), box)
        low, high = float(dataset["energy_low"][0]), float(dataset["energy_high"][-1])
        first = dataset["time_start"].values[0]
        texts.append(f"box={box} from {iso(first)}, {dataset.sizes['time']} bins, {low:g}-{high:g} keV")
    return texts


def _no_request(catalog: Catalog, product: str, request_id: int, found: Sequence[Partition]) -> NotFound:
    if found:
        have = ", ".join(str(item.seq_control) for item in found)
        return NotFound(f"the request {request_id} has no such answer", expected=f"seq_control {have}")
    elsewhere = [item.product for item in catalog.partitions(request_id=int(request_id))]
    return NotFound(
        f"there is no {product} of the request {request_id}"
        + (f", but {' and '.join(elsewhere)}" if elsewhere else ""),
        expected="a request that archive.requests() lists",
        advice="correct the number, or ingest its telemetry",
    )


def open_calibration(catalog: Catalog, root: str, key: str) -> xr.Dataset:
    """Return the Dataset of a calibration run, or raise `NotFound`."""
    found = catalog.current("cal_spectrum", key)
    if found is None:
        raise NotFound(f"there is no calibration run {key!r}", expected="a run that archive.calibrations() lists")
    return open_store(join_url(root, found.path), digest=found.digest)
