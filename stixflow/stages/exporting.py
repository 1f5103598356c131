"""Official level-1 files of what an archive holds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from stixflow.archive import Archive, PacketSet, Partition, open_archive
from stixflow.cubes.files import local_copy
from stixflow.cubes.model import PRODUCTS
from stixflow.cubes.store import open_store
from stixflow.errors import NotFound, StixflowError, StoreError, UsageError
from stixflow.fits import EXPORTED, Origin, level1_name, read_origin, write_level1
from stixflow.jobs.kept import read_kept
from stixflow.stages.official import is_official, sources_of
from stixflow.telemetry import Packets, concat, decode
from stixflow.time import TICKS_PER_SECOND, TimeRange, to_utc

_OF_REQUESTS = tuple(name for name in EXPORTED if PRODUCTS[name].partition == "request")
_DAY = np.timedelta64(1, "D")


def export_files(
    root: str,
    output: Path,
    *,
    catalog: str | None = None,
    release: str | None = None,
    product: str | None = None,
    start: str | None = None,
    stop: str | None = None,
    request_id: int | None = None,
    version: str = "V02",
    gzip: bool = False,
) -> dict[str, Any]:
    """Write level-1 files of a request, or of a product during ``[start, stop)``: one a day, or one a request and box.

    Raises
    ------
    NotFound
        If the archive holds nothing of it.
    UsageError
        If neither a product nor a request was named, or there are no level-1 files of the product.
    """
    span = TimeRange(to_utc(start or "2020-01-01"), to_utc(stop or "2100-01-01"))
    archive = open_archive(root, release=release, catalog=catalog)
    found = _partitions(archive, product, span, request_id)
    output.mkdir(parents=True, exist_ok=True)
    files: list[dict[str, Any]] = []
    for item in found:
        for dataset in _datasets(archive, item, span):
            name = _free_name(level1_name(dataset, version=version), {one["name"].removesuffix(".gz") for one in files})
            files.append(_write(archive, item, dataset, output / (name + (".gz" if gzip else "")), version=version))
    if not files:
        what = product or f"request {request_id}"
        raise NotFound(f"there is nothing of {what} to export", expected="published data", advice="ask another span")
    return {"output": str(output), "files": files}


def _partitions(archive: Archive, product: str | None, span: TimeRange, request_id: int | None) -> list[Partition]:
    if product is None and request_id is None:
        raise UsageError("nothing was named", expected="a product or a request", advice="give --product or --request")
    if product is not None and product not in EXPORTED:
        raise UsageError(
            f"{product} has no level-1 file", expected=f"one of {', '.join(EXPORTED)}", advice="export another product"
        )
    names = [product] if product else list(_OF_REQUESTS)
    return archive.catalog.partitions(names, start=span.start, stop=span.stop, request_id=request_id)


def _datasets(archive: Archive, item: Partition, span: TimeRange) -> Iterator[xr.Dataset]:
    """Load the boxes of a partition; of a day only what lies in the span."""
    for box in range(item.boxes):
        dataset = open_store(archive.url(item.path), box, digest=item.digest)
        if item.request_id is None:
            rows = np.flatnonzero(span.covers(dataset["time"].values))
            dataset = dataset.isel(time=slice(rows[0], rows[-1] + 1) if rows.size else slice(0))
        if dataset.sizes["time"]:
            yield dataset.load()


def _free_name(name: str, taken: set[str]) -> str:
    """Return the name, or for the next calibration run of a day one with the number of the run."""
    numbered = (name if run == 1 else f"{name.removesuffix('.fits')}-run{run}.fits" for run in itertools.count(1))
    return next(one for one in numbered if one not in taken)


def _write(archive: Archive, item: Partition, dataset: xr.Dataset, target: Path, *, version: str) -> dict[str, Any]:
    path = write_level1(
        target,
        dataset,
        version=version,
        ephemeris=ephemeris_of(archive, item),
        provenance=origin_of(archive, item),
    )
    times = dataset["time"].values[[0, -1]]
    return {
        "name": path.name,
        "product": item.product,
        "key": item.key,
        "box": int(dataset.attrs.get("box", 0)),
        "bins": dataset.sizes["time"],
        "start": str(times[0]),
        "stop": str(times[1]),
        "bytes": path.stat().st_size,
        "complete": item.complete,
    }


def ephemeris_of(archive: Archive, item: Partition) -> xr.Dataset | None:
    """Where the spacecraft was in the middle of a partition, if the archive has it."""
    middle = item.start + (item.stop - item.start) // 2
    try:
        ephemeris = archive.ephemeris(middle - _DAY, middle + _DAY)
    except NotFound:
        return None
    near = np.abs(ephemeris["time"].values - middle).min() < np.timedelta64(1, "h")
    return ephemeris if near else None


def origin_of(archive: Archive, item: Partition) -> Origin:
    """Files of a partition, and for a request its packets, as far as they are still kept."""
    sets = archive.catalog.packet_sets(item.product, item.key)
    if item.attrs.get("made_from"):
        return _origin_of_file(archive, item, [one for one in sets if is_official(one)])
    sets = [one for one in sets if not is_official(one)]
    of_sets = {one.file_digest for one in sets}
    names = tuple(sorted(str(row["name"]) for row in archive.catalog.files() if row["digest"] in of_sets))
    known: dict[str, Any] = {}
    if item.request_id is not None and sets:
        try:
            known = _packets([Packets.from_bytes(read_kept(archive.root, one.path, one.digest)) for one in sets])
        except StoreError:
            known = {}
    return Origin(raw_files=names, history=_history(item), **known)


def _origin_of_file(archive: Archive, item: Partition, sets: Sequence[PacketSet]) -> Origin:
    """What an official file says beyond its measurements, if the partition is made of one alone."""
    used = [one for one in sets if one.attrs["name"] in sources_of(item)]
    names = tuple(str(one.attrs["name"]) for one in used)
    found = Origin(parents=names)
    if len(used) == 1:
        with suppress(StixflowError, FileNotFoundError), local_copy(archive.url(used[0].path)) as place:
            found = replace(read_origin(place), parents=names)
    return replace(found, history=(*found.history, *_history(item)))


def _packets(pieces: Sequence[Packets]) -> dict[str, Any]:
    records = next((one for one in decode(concat(pieces)).values() if one.sequence_count.size), None)
    if records is None:
        return {}
    stamp = divmod(int(records["time_stamp"][0]), TICKS_PER_SECOND)
    return {
        "packets": tuple(records.sequence_count.tolist()),
        "substructures": tuple(records.lengths("num_substructures").tolist()),
        "packet_id": int(records["tc_packet_id"][0]),
        "time_stamp": stamp[0] + stamp[1] / 65535.0,
    }


def _history(item: Partition) -> tuple[str, ...]:
    return (
        f"stixflow run {item.run_id}, code {item.code_version}",
        f"stixflow partition {item.product} {item.key}, data {item.digest}",
        f"stixflow inputs {item.input_digest}",
    )


def format_export(payload: dict[str, Any]) -> str:
    """Write what was exported as text."""
    lines = [f"{one['name']}  {one['bins']} bins, {one['bytes']} bytes" for one in payload["files"]]
    return "\n".join([*lines, f"{len(lines)} files in {payload['output']}"])
