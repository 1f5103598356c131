"""Whether the stores that are published are there, and hold what the catalog says of them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from stixflow.archive.catalog import Catalog
from stixflow.archive.entries import Partition
from stixflow.archive.layout import join_url
from stixflow.archive.months import joined_months
from stixflow.cubes.store import Defect, open_store, verify_store, which_are_there
from stixflow.errors import StixflowError


def lost_stores(catalog: Catalog, root: str) -> list[Partition]:
    """Return the published partitions whose store is no longer there, by a listing of the root."""
    published = catalog.partitions()
    there = which_are_there(root, [item.path for item in published])
    return [item for item in published if item.path not in there]


def verify_stores(catalog: Catalog, root: str, partitions: Iterable[Partition] | None) -> list[Defect]:
    """Read the stores of partitions, for None of all that is published and of joined months; return every defect."""
    chosen = catalog.partitions() if partitions is None else partitions
    found = [defect for item in chosen for defect in _verify_one(join_url(root, item.path), item)]
    return found if partitions is not None else found + verify_months(catalog, root)


def _verify_one(url: str, item: Partition) -> list[Defect]:
    found = verify_store(url, item.digest)
    return found or [Defect(url, "catalog", problem) for problem in _disagreements(url, item)]


def _disagreements(url: str, item: Partition) -> list[str]:
    try:
        boxes = [open_store(url, box) for box in range(item.boxes)]
    except StixflowError as error:
        return [str(error)]
    n_time = sum(box.sizes["time"] for box in boxes)
    counts = sum(int(box["counts"].values.sum(dtype=np.uint64)) for box in boxes if "counts" in box)
    compared = {"time bins": (n_time, item.n_time), "counts": (counts, item.counts_sum)}
    return [
        f"the store has {found} {what}, the catalog {wanted}"
        for what, (found, wanted) in compared.items()
        if found != wanted
    ]


def verify_months(catalog: Catalog, root: str) -> list[Defect]:
    """Read the joined months, which are made of what is published, and return every defect."""
    return [defect for path in joined_months(catalog) for defect in verify_store(join_url(root, path))]
