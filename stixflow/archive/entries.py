"""What the catalog keeps rows of: files, packet sets, quarantined bytes, partitions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np

from stixflow.cubes.model import DATA_MODEL_VERSION

if TYPE_CHECKING:
    from stixflow.cubes.store import StoreRecord


@dataclass(frozen=True, slots=True)
class FileEntry:
    """An input file and the balance of its packets: ``packets_in = used + duplicates + rejected``."""

    digest: str
    name: str
    kind: str
    n_bytes: int
    packets_in: int = 0
    used: int = 0
    duplicates: int = 0
    rejected: int = 0
    path: str | None = None
    """Where the archive keeps the file, below its root; None where it does not."""
    attrs: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PacketSet:
    """The packets of one file for one partition, kept below the root at `path`."""

    product: str
    key: str
    digest: str
    path: str
    n_packets: int
    file_digest: str
    attrs: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Quarantined:
    """Bytes that were not used, why, and where they are kept."""

    file: str
    reason: str
    offset: int | None = None
    n_bytes: int | None = None
    path: str | None = None


@dataclass(frozen=True, slots=True)
class Partition:
    """One store and what the catalog knows of it; `id`, `state` and `created` are the catalog's."""

    run_id: str
    product: str
    key: str
    day: date
    path: str
    """Of the store, below the root of the archive."""
    digest: str
    input_digest: str
    code_version: str
    n_time: int
    boxes: int
    counts_sum: int
    n_bytes: int
    start: np.datetime64
    stop: np.datetime64
    structure: str = ""
    axes: str = ""
    request_id: int | None = None
    seq_control: int | None = None
    complete: bool = True
    missing: str = ""
    shrink_reason: str = ""
    data_model_version: int = DATA_MODEL_VERSION
    attrs: Mapping[str, object] = field(default_factory=dict)
    id: int = 0
    state: str = "new"
    replaces: int | None = None
    created: np.datetime64 = field(default_factory=lambda: np.datetime64("NaT", "ns"))
    collected: int | None = None
    """When its store was removed as garbage, ns since 1970; None while it is there."""


def draft_partition(
    record: StoreRecord,
    *,
    path: str,
    run_id: str,
    product: str,
    key: str,
    day: date,
    input_digest: str,
    code_version: str,
    complete: bool = True,
    missing: str = "",
    attrs: Mapping[str, object] | None = None,
) -> Partition:
    """Return what to stage for a store that was just written at `path` below the root.

    Parameters
    ----------
    attrs
        What the catalog shall keep beside its own columns; by default the global attributes of the store.
    """
    copied: dict[str, Any] = {name: getattr(record, name) for name in _FROM_RECORD}
    copied |= {name: record.attrs.get(name) for name in ("request_id", "seq_control")}
    return Partition(
        run_id=run_id,
        product=product,
        key=key,
        day=day,
        path=path,
        input_digest=input_digest,
        code_version=code_version,
        complete=complete,
        missing=missing,
        attrs=record.attrs if attrs is None else attrs,
        **copied,
    )


_FROM_RECORD = ("digest", "n_time", "boxes", "counts_sum", "n_bytes", "start", "stop", "structure", "axes")
