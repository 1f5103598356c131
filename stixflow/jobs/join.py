"""The days of one month to one store."""

from __future__ import annotations

from dataclasses import dataclass

from stixflow.archive.layout import join_url
from stixflow.archive.months import LAYOUT
from stixflow.cubes.store import open_joined, verify_store, write_store
from stixflow.errors import SchemaError, StoreError


@dataclass(frozen=True, slots=True)
class JoinJob:
    """Daily stores, path below the root and digest of each, in order of time, and where to join them."""

    label: str
    stores: tuple[tuple[str, str], ...]
    path: str
    root: str


def join(job: JoinJob) -> str:
    """Write the days of a month as one store and verify it.

    Returns
    -------
    Why they cannot be joined, as when the clock put bins of one day into another; empty if they were.

    Raises
    ------
    StoreError
        If a day is damaged, or the new store does not verify.
    """
    joined = open_joined([(join_url(job.root, path), digest) for path, digest in job.stores]).compute()
    url = join_url(job.root, job.path)
    try:
        record = write_store(url, [joined], layout=LAYOUT)
    except SchemaError as error:
        return error.found
    defects = verify_store(url, record.digest)
    if defects:
        raise StoreError(f"the joined month has {len(defects)} defects, the first: {defects[0]}", advice="run again")
    return ""
