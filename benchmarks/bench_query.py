"""What queries of an archive cost: seconds, requests and bytes, on a local disk and in a bucket.

    python benchmarks/bench_query.py [--days 365] [--quick] [--s3 DAYS] [--json]

Writes days of simulated light curves (Poisson counts, 4 s) and a pixel request of an hour through the store into an
archive in a temporary folder, then asks, warm, the best of three: a day, all days opened, their counts, an hour in the
middle of them; one energy of the request, and a minute of it as an image takes it. Light curves with daily stores alone
and with joined months. On the disk a request is a file that was opened, and bytes are those that were read; of the same
archive in a bucket (moto's server in this process, so its seconds are mostly its own) they are questions to the service
and bytes of its answers. For comparison the same days as level-1 FITS, read one by one with astropy.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import numpy as np
from astropy.io import fits
from example_archive import add
from example_cubes import make_dataset

from stixflow.archive import Archive, open_archive
from stixflow.compute import Serial
from stixflow.stages.months import join_months
from stixflow.stages.run import open_run

FIRST = date(2021, 1, 1)
BINS = 21_600


@dataclass(frozen=True)
class Row:
    """What one query costs."""

    place: str
    layout: str
    query: str
    seconds: float
    requests: int
    megabytes: float

    def __str__(self) -> str:
        cost = f"{self.seconds:7.3f} s {self.requests:6d} requests {self.megabytes:8.2f} MB"
        return f"{self.place:6s} {self.layout:13s} {self.query:28s} {cost}"


class Meter:
    """Counts what is asked of a place, and the bytes that come back."""

    def __init__(self) -> None:
        self.requests = self.n_bytes = 0

    def read(self) -> tuple[int, int]:
        return self.requests, self.n_bytes


class DiskMeter(Meter):
    """Files opened below a folder, and bytes that this process reads while they are."""

    def __init__(self, root: str) -> None:
        super().__init__()
        self.root = root
        sys.addaudithook(self._see)

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and str(arguments[0]).startswith(self.root) and "catalog.sqlite" not in str(arguments[0]):
            self.requests += 1

    def read(self) -> tuple[int, int]:
        lines = Path("/proc/self/io").read_text().splitlines()
        return self.requests, int(lines[0].split()[1])


class BucketMeter(Meter):
    """Questions to a server of buckets, and bytes of its answers."""

    def __init__(self, bucket: Any) -> None:
        super().__init__()
        self.bucket = bucket

    def read(self) -> tuple[int, int]:
        return sum(self.bucket.requests.values()), self.bucket.sent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--quick", action="store_true", help="60 days")
    parser.add_argument("--s3", type=int, metavar="DAYS", help="days in the bucket (default: all; 0: none)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    days = 60 if options.quick else options.days
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        rows += _on_disk(Path(folder), days, options.json)
        if (in_bucket := days if options.s3 is None else min(options.s3, days)) > 0:
            rows += _in_bucket(Path(folder), in_bucket, options.json)
    if options.json:
        sys.stdout.write(json.dumps([asdict(row) for row in rows]) + "\n")


def _on_disk(folder: Path, days: int, quiet: bool) -> list[Row]:
    root = folder / "archive"
    archive = open_archive(root, create=True)
    seconds = _timed(lambda: _fill(archive, folder, days))
    _say(f"{days} days and a request written: {seconds / days * 1e3:.1f} ms a day, FITS included", quiet)
    meter = DiskMeter(str(root))
    rows = _measure("disk", "daily stores", archive, days, meter, quiet)
    with open_run(str(root), pool=Serial(), command="bench") as run:
        seconds = _timed(lambda: join_months(run))
    sizes = [_size(root / name) / 1e6 for name in ("derived", "ql_lightcurve")]
    _say(f"months joined: {seconds:.2f} s, {sizes[0]:.0f} MB beside {sizes[1]:.0f} MB", quiet)
    rows += _measure("disk", "joined months", archive, days, meter, quiet)
    rows += _of_request("disk", archive, meter, quiet)
    before = meter.read()[1]
    seconds = min(_timed(lambda: _read_fits(folder)) for _ in range(2))
    rows.append(_told(Row("disk", "FITS", "counts", seconds, days, (meter.read()[1] - before) / 2e6), quiet))
    archive.close()
    return rows


def _in_bucket(folder: Path, days: int, quiet: bool) -> list[Row]:
    import s3fs
    from services.s3 import fresh, serving

    with serving() as server:
        bucket = fresh(server)
        seconds = _timed(
            lambda: s3fs.S3FileSystem().put(
                [str(path) for path in _stores_of(folder / "archive", days)],
                [
                    f"{bucket.url}/{path.relative_to(folder / 'archive')}"
                    for path in _stores_of(folder / "archive", days)
                ],
            )
        )
        _say(f"{days} days put into a bucket: {seconds:.0f} s", quiet)
        archive = open_archive(bucket.url, catalog=f"sqlite:///{folder / 'archive/catalog.sqlite'}")
        meter = BucketMeter(bucket)
        rows = []
        with _without_months():
            rows += _measure("bucket", "daily stores", archive, days, meter, quiet, repeat=1)
        rows += _measure("bucket", "joined months", archive, days, meter, quiet, repeat=1)
        return rows + _of_request("bucket", archive, meter, quiet)


def _stores_of(root: Path, days: int) -> list[Path]:
    """Objects of the stores of the first days, of the months and of the request."""
    last = FIRST + timedelta(days=days)
    found = [path for path in root.rglob("*") if path.is_file() and "catalog.sqlite" not in path.name]

    def is_wanted(path: Path) -> bool:
        parts = path.relative_to(root).parts
        return parts[0] != "ql_lightcurve" or date(*map(int, parts[2:5])) < last

    return [path for path in found if is_wanted(path)]


@contextmanager
def _without_months() -> Iterator[None]:
    from unittest.mock import patch

    with patch(
        "stixflow.archive.opening.stores_of", lambda _c, _r, found: [(item.path, item.digest) for item in found]
    ):
        yield


def _fill(archive: Archive, folder: Path, days: int) -> None:
    like = make_dataset("ql_lightcurve", n_time=BINS, start=np.datetime64(FIRST, "ns"))
    rng = np.random.default_rng(1)
    for number in range(days):
        day = FIRST + timedelta(days=number)
        shift = np.timedelta64(number, "D")
        one = like.assign_coords(
            time=like["time"].values + shift,
            time_start=("time", like["time_start"].values + shift, like["time_start"].attrs),
            scet=("time", like["scet"].values + (number * 86_400 << 16), like["scet"].attrs),
        )
        one["time"].attrs.update(like["time"].attrs)
        values = rng.poisson((2000, 400, 120, 60, 30), (BINS, 5)).astype(np.uint32)
        one["counts"] = (like["counts"].dims, values, like["counts"].attrs)
        add(archive, [one], day)
        columns = [fits.Column("counts", "5J", array=one["counts"].values, bzero=2**31)]
        columns.append(fits.Column("time", "J", array=np.arange(BINS), bzero=2**31))
        fits.BinTableHDU.from_columns(columns).writeto(folder / f"{number:03d}.fits")
    pixels = make_dataset("sci_pixels", n_time=3600, n_energy=24, step_s=1.0, start=np.datetime64(FIRST, "ns"))
    values = rng.poisson(1.5, pixels["counts"].shape).astype(pixels["counts"].dtype)
    add(archive, [pixels.assign(counts=(pixels["counts"].dims, values, pixels["counts"].attrs))], FIRST)


def _measure(
    place: str, layout: str, archive: Archive, days: int, meter: Meter, quiet: bool, *, repeat: int = 3
) -> list[Row]:
    stop = FIRST + timedelta(days=days)
    middle = np.datetime64(FIRST + timedelta(days=days // 2), "ns")
    hour = slice(middle, middle + np.timedelta64(1, "h"))
    one_day = FIRST + timedelta(days=days // 2), FIRST + timedelta(days=days // 2 + 1)
    queries: dict[str, Callable[[], object]] = {
        "a day and its counts": lambda: archive.lightcurves(*one_day)["counts"].values,
        f"{days} days opened": lambda: archive.lightcurves(FIRST, stop),
        f"{days} days and their counts": lambda: archive.lightcurves(FIRST, stop)["counts"].compute(),
        f"{days} days, one hour": lambda: archive.lightcurves(FIRST, stop).sel(time=hour)["counts"].load(),
    }
    return [_ask(place, layout, query, function, meter, quiet, repeat) for query, function in queries.items()]


def _of_request(place: str, archive: Archive, meter: Meter, quiet: bool) -> list[Row]:
    (request_id,) = archive.requests()["request_id"]
    span = slice(*(np.datetime64(FIRST, "ns") + np.timedelta64(minute, "m") for minute in (30, 31)))
    queries: dict[str, Callable[[], object]] = {
        "request opened": lambda: archive.pixels(request_id),
        "light curve of one energy": lambda: archive.pixel_lightcurve(request_id, energy_range=(6, 7))["counts"].values,
        "a minute, as for an image": lambda: archive.pixels(request_id)["counts"].sel(time=span).values,
        "all counts": lambda: archive.pixels(request_id)["counts"].values,
    }
    return [_ask(place, "a request", query, function, meter, quiet, 3) for query, function in queries.items()]


def _ask(
    place: str, layout: str, query: str, function: Callable[[], object], meter: Meter, quiet: bool, repeat: int
) -> Row:
    best, before = float("inf"), meter.read()
    for _ in range(repeat):
        best = min(best, _timed(function))
    after = meter.read()
    requests, n_bytes = ((b - a) / repeat for a, b in zip(before, after, strict=True))
    return _told(Row(place, layout, query, round(best, 4), round(requests), n_bytes / 1e6), quiet)


def _read_fits(folder: Path) -> None:
    np.concatenate([np.asarray(fits.getdata(path)["counts"]) for path in sorted(folder.glob("*.fits"))])


def _timed(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _told(row: Row, quiet: bool) -> Row:
    _say(str(row), quiet)
    return row


def _say(text: str, quiet: bool) -> None:
    if not quiet:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
