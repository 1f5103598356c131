"""What differs between two releases, partition by partition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stixflow.archive.catalog import Catalog
from stixflow.archive.entries import Partition


def compare_releases(before: Catalog, after: Catalog) -> list[dict[str, Any]]:
    """Compare what two catalogs show, partition by partition.

    Returns
    -------
    One row for each partition that is not the same in both: `product`, `key`, `change` (``added``, ``removed``,
    ``changed``: other values; ``rebuilt``: another run with the same values), and of each side run, digest, time bins
    and counts.
    """
    old, new = _by_key(before), _by_key(after)
    rows = []
    for key in sorted(old.keys() | new.keys()):
        change = _change(old.get(key), new.get(key))
        if change:
            rows.append(dict(zip(("product", "key"), key, strict=True)) | {"change": change} | _sides(old, new, key))
    return rows


def _by_key(catalog: Catalog) -> dict[tuple[str, str], Partition]:
    return {(item.product, item.key): item for item in catalog.partitions()}


def _change(old: Partition | None, new: Partition | None) -> str:
    if old is None or new is None:
        return "added" if old is None else "removed"
    if old.digest != new.digest:
        return "changed"
    return "" if old.id == new.id else "rebuilt"


def _sides(old: Mapping[Any, Partition], new: Mapping[Any, Partition], key: object) -> dict[str, Any]:
    names = ("run_id", "digest", "n_time", "counts_sum")
    sides = {"before": old.get(key), "after": new.get(key)}
    return {f"{name}_{side}": getattr(item, name, None) for name in names for side, item in sides.items()}
