"""Official level-1 files as inputs: what one holds, and the Datasets that a partition is made of."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stixflow.archive.layout import day_key, join_url, request_key, run_key
from stixflow.cubes.corrections import MISSING_DETECTORS, OVERLAPPING_DURATIONS, correct
from stixflow.cubes.files import local_copy
from stixflow.cubes.model import PRODUCTS
from stixflow.errors import BalanceError, InputFileError, StixflowError, StoreError
from stixflow.jobs.kept import Refused, write_kept
from stixflow.time import ANCHOR_CLOCK, TICKS_PER_SECOND, Clock, TimeRange, iso

if TYPE_CHECKING:
    import xarray as xr

HEADER_CLOCK = "level-1 header"
"""Clock of Datasets that keep the UTC of the official file they came in."""

_FIRST, _LAST = np.datetime64("2020-02-10", "ns"), np.datetime64("2040-01-01", "ns")
"""Launch, and later than the mission can last."""
_VERSION = re.compile(r"V(\d{1,9})", re.IGNORECASE)
_KEPT_NAME = re.compile(r"[0-9a-f]{32}")
"""What an archive calls a file that it keeps; taken in from there, it has the name that its header gives."""
_SHOWN = 3
_IDLE_BYTES = 50_000_000
_TIMES_ITS_LENGTH = 2
"""Measured with tracemalloc: 1.8 times, for pixel data of 30 MB."""
_GZIP_TRAILER = 18


@dataclass(frozen=True, slots=True)
class OfficialJob:
    """One official file to be kept below `root`."""

    path: str
    digest: str
    root: str

    @property
    def estimated_bytes(self) -> int:
        """Bytes that taking it in needs at most: twice its length, unpacked where it is gzipped."""
        try:
            return _IDLE_BYTES + _TIMES_ITS_LENGTH * _unpacked_bytes(Path(self.path))
        except OSError:
            return 0


@dataclass(frozen=True, slots=True)
class OfficialPart:
    """What an official file holds of one partition."""

    product: str
    key: str
    attrs: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class OfficialFile:
    """An official file that is kept, and the partitions it belongs to."""

    path: str
    bins: int
    counts: int
    """What the books count: the sum of the counts, of a product without counts its bins."""
    parts: tuple[OfficialPart, ...]


@dataclass(frozen=True, slots=True)
class OfficialInput:
    """One official file of a partition that is to be built."""

    path: str
    digest: str
    name: str


@dataclass(frozen=True, slots=True)
class OfficialBooks:
    """Bins and counts of the official files of one partition: in the files = used + repeated + unlike the others."""

    bins: int = 0
    counts: int = 0
    used_bins: int = 0
    used_counts: int = 0
    left: tuple[str, ...] = field(default=())
    """Files with other energy bins than the first."""


def _unpacked_bytes(path: Path) -> int:
    """Length of a file, of a gzipped one as its last four bytes tell."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        length = file.seek(0, os.SEEK_END)
        if not packed or length < _GZIP_TRAILER:
            return length
        file.seek(-4, os.SEEK_END)
        return int.from_bytes(file.read(4), "little")


def keep_official(job: OfficialJob) -> OfficialFile | Refused:
    """Read an official file whole, copy it into the archive, and tell the partitions that it has bins of."""
    path = Path(job.path)
    from stixflow.fits.headers import verify_sums

    try:
        cubes = _read(path)
        verify_sums(path)
        parts = [part for number, cube in enumerate(cubes) for part in _parts(cube, path, number)]
    except StixflowError as error:
        return Refused(str(error))
    blob = path.read_bytes()
    if hashlib.sha256(blob).hexdigest() != job.digest:
        return Refused(f"{path.name} changed while it was read. Do: ingest it again.")
    home = parts[0].attrs["home"]
    place = f"packets/{parts[0].product}/{home}/{job.digest[:32]}.fits"
    write_kept(job.root, place, blob)
    return OfficialFile(place, sum(_bins(one) for one in cubes), sum(map(_amount, cubes)), tuple(parts))


def _read(path: Path, name: str | None = None) -> list[xr.Dataset]:
    from stixflow.cubes.check import find_problems
    from stixflow.fits.level1 import read_every

    cubes = [_corrected(cube) for cube in read_every(path, name=name)]
    for cube in cubes:
        problems = find_problems(cube)
        if problems:
            more = f" and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
            raise InputFileError(
                f"{name or path.name} cannot be a {cube.attrs['product']} cube: {'; '.join(problems[:_SHOWN])}{more}",
                expected="bins that follow each other, as in the official files",
                advice="use a later version of the file",
            )
    return cubes


def _corrected(cube: xr.Dataset) -> xr.Dataset:
    """Correct requests as those of telemetry are, and what only their files have wrong."""
    is_request = PRODUCTS[str(cube.attrs["product"])].partition == "request"
    return correct(cube, (OVERLAPPING_DURATIONS, MISSING_DETECTORS)) if is_request else cube


def _bins(cube: xr.Dataset) -> int:
    return int(cube.sizes["time"])


def _amount(cube: xr.Dataset) -> int:
    from stixflow.cubes.build import amount_of

    return int(cube["flux"].values.sum(dtype=np.uint64)) if "flux" in cube else amount_of(cube)


def _parts(cube: xr.Dataset, path: Path, number: int) -> list[OfficialPart]:
    """Name the partitions of a cube: every day that it has bins of, its request, or its calibration run."""
    times = cube["time"].values
    if not ((times >= _FIRST) & (times < _LAST)).all():
        raise InputFileError(
            f"{path.name} holds times from {iso(times.min())} to {iso(times.max())}",
            expected="data of the mission, from 2020-02-10 on",
            advice="check the file: it would be published on a wrong day",
        )
    product = str(cube.attrs["product"])
    common = {**_rank(path), "n_home": 0}
    if PRODUCTS[product].partition == "day":
        days, bins = np.unique(times.astype("datetime64[D]"), return_counts=True)
        keys = [day_key(day.astype(date)) for day in days]
        home = keys[int(np.argmax(bins))]
        return [
            OfficialPart(product, key, {**common, "home": home, "bins": int(n)})
            for key, n in zip(keys, bins.tolist(), strict=True)
        ]
    key = _key(cube, product)
    boxes = {name: int(cube.attrs[name]) for name in ("box", "boxes") if name in cube.attrs}
    return [OfficialPart(product, key, {**common, "home": key, "bins": _bins(cube), "part": number, **boxes})]


def _key(cube: xr.Dataset, product: str) -> str:
    if PRODUCTS[product].partition == "request":
        return request_key(cube.attrs["request_id"], cube.attrs["seq_control"])
    return run_key(int(cube["scet"].values[0]) >> 16, round(float(cube["timedel"].values[0])))


def _rank(path: Path) -> dict[str, Any]:
    """What decides between files of the same: level, version, when they were made."""
    from stixflow.fits.headers import peek

    cards = peek(path)
    name = str(cards.get("FILENAME") or path.name) if _KEPT_NAME.fullmatch(path.stem) else path.name
    given = str(cards.get("VERSION", "")).strip()
    named = _VERSION.findall(path.stem.split(".")[0])
    version = int(given) if given.isdecimal() and len(given) < 9 else int(named[-1]) if named else 0
    return {
        "name": name,
        "level": str(cards.get("LEVEL", "L1")),
        "version": version,
        "made": str(cards.get("DATE", "")),
    }


def read_inputs(
    root: str, product: str, key: str, inputs: Sequence[OfficialInput], clock: Clock
) -> tuple[list[xr.Dataset], OfficialBooks]:
    """Read the Datasets that official files hold of one partition, as they are to be stored.

    Parameters
    ----------
    inputs
        Files in order: where two hold the same time, the first of them counts.
    clock
        What dates the bins; the anchor table leaves the UTC of the files, which was made with the mission's kernels.

    Raises
    ------
    StoreError
        If a file is not there, or is not what was recorded.
    BalanceError
        If counts of the files are neither in the Datasets nor repeated.
    """
    cubes = [[_dated(cube, clock) for cube in _read_kept(root, one)] for one in inputs]
    if PRODUCTS[product].partition == "day":
        return _day(key, cubes, inputs)
    found = [cube for parts in cubes for cube in parts if _key(cube, product) == key]
    found.sort(key=lambda cube: int(cube.attrs.get("box", 0)))
    bins, counts = sum(map(_bins, found)), sum(map(_amount, found))
    made = [_labelled(cube, inputs, complete=True, missing=[]) for cube in found]
    return made, OfficialBooks(bins, counts, bins, counts)


def _read_kept(root: str, one: OfficialInput) -> list[xr.Dataset]:
    try:
        with local_copy(join_url(root, one.path)) as place:
            if hashlib.sha256(place.read_bytes()).hexdigest() != one.digest:
                raise StoreError(
                    f"{one.path} does not have the content that was recorded",
                    expected=f"SHA-256 {one.digest}",
                    advice=f"restore it from a copy, or remove it and ingest {one.name} again",
                )
            return _read(place, one.name)
    except FileNotFoundError as error:
        raise StoreError(
            f"{one.path} is not there", expected="a file that the archive keeps", advice=f"ingest {one.name} again"
        ) from error


def _day(
    key: str, cubes: Sequence[Sequence[xr.Dataset]], inputs: Sequence[OfficialInput]
) -> tuple[list[xr.Dataset], OfficialBooks]:
    from stixflow.cubes.merge import merge_bins

    day = TimeRange.of_day(date.fromisoformat(key))
    pieces, files = [], []
    for one, (cube,) in zip(inputs, cubes, strict=True):
        inside = day.covers(cube["time"].values)
        if inside.any():
            pieces.append(cube if inside.all() else cube.isel(time=np.flatnonzero(inside)))
            files.append(one)
    if not pieces:
        return [], OfficialBooks()
    merged = merge_bins(pieces)
    repeated = [pieces[number].isel(time=rows) for number, rows in merged.repeated]
    unlike = [pieces[number] for number in merged.unlike]
    books = OfficialBooks(
        sum(map(_bins, pieces)),
        sum(map(_amount, pieces)),
        _bins(merged.dataset),
        _amount(merged.dataset),
        tuple(files[number].name for number in merged.unlike),
    )
    gone = sum(map(_amount, (*repeated, *unlike)))
    if books.counts != books.used_counts + gone:
        raise BalanceError(
            f"{books.counts} counts of {key} in the files, {books.used_counts} in the cube, {gone} repeated",
            expected="in the files = in the cube + repeated",
            advice="report this with the files",
        )
    told = {
        "counts": books.used_counts,
        "counts_in": books.counts,
        "repeated_bins": sum(map(_bins, repeated)),
        "repeated_counts": sum(map(_amount, repeated)),
        "unplaced_counts": sum(map(_amount, unlike)),
    }
    return [_labelled(merged.dataset, files, books=told)], books


def _labelled(cube: xr.Dataset, inputs: Sequence[OfficialInput], **attrs: object) -> xr.Dataset:
    """Say in the attributes what the cube came from."""
    kept = {name: value for name, value in cube.attrs.items() if name != "source_file"}
    made = cube.copy(deep=False)
    made.attrs = {**kept, "made_from": "official level-1 files", "source_files": [one.name for one in inputs], **attrs}
    return made


def _dated(cube: xr.Dataset, clock: Clock) -> xr.Dataset:
    scet = cube["scet"].values
    uncertain = round(float(clock.uncertainty(scet).max()), 6)
    if clock == ANCHOR_CLOCK:
        return cube.assign_attrs(clock=HEADER_CLOCK, clock_uncertainty_s=uncertain)
    times = {name: cube[name].variable.copy(data=values) for name, values in _times(cube, clock).items()}
    return cube.assign(times).assign_attrs(clock=clock.name, clock_uncertainty_s=uncertain)


def _times(cube: xr.Dataset, clock: Clock) -> dict[str, NDArray[np.datetime64]]:
    scet = cube["scet"].values
    if "timedel" not in cube:
        return {"time": clock.utc(scet)}
    half = np.rint(cube["timedel"].values * (TICKS_PER_SECOND / 2)).astype(np.int64)
    return {"time": clock.utc(scet + half), "time_start": clock.utc(scet)}


__all__ = [
    "HEADER_CLOCK",
    "OfficialBooks",
    "OfficialFile",
    "OfficialInput",
    "OfficialJob",
    "OfficialPart",
    "keep_official",
    "read_inputs",
]
