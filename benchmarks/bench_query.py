"""Open and read light curves of a year: daily stores, joined months, and official files one by one.

    python benchmarks/bench_query.py [--days 365] [--quick]

Writes days of simulated light curves (Poisson counts, 4 s) through the store into an archive in a temporary folder,
then measures, warm, the best of three: opening, reading all counts, an hour in the middle; with daily stores alone, and
with joined months. For comparison the same days as level-1 FITS, read one by one with astropy.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--quick", action="store_true", help="60 days")
    options = parser.parse_args()
    days = 60 if options.quick else options.days
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "archive"
        archive = open_archive(root, create=True)
        seconds = _timed(lambda: _fill(archive, Path(folder), days))
        _say(f"{days} days written: {seconds / days * 1e3:.1f} ms a day, FITS included")
        _measure("daily stores", archive, days)
        with open_run(str(root), pool=Serial(), command="bench") as run:
            seconds = _timed(lambda: join_months(run))
        _say(f"months joined: {seconds:.2f} s, {_size(root / 'derived') / 1e6:.0f} MB beside "
             f"{_size(root / 'ql_lightcurve') / 1e6:.0f} MB")  # fmt: skip
        _measure("joined months", archive, days)
        seconds = min(_timed(lambda: _read_fits(Path(folder))) for _ in range(2))
        _say(f"{'FITS one by one':16s} read counts {seconds:6.3f} s")


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


def _measure(name: str, archive: Archive, days: int) -> None:
    stop = FIRST + timedelta(days=days)
    middle = np.datetime64(FIRST + timedelta(days=days // 2), "ns")

    def opened() -> None:
        archive.lightcurves(FIRST, stop)

    def hour() -> None:
        archive.lightcurves(FIRST, stop).sel(time=slice(middle, middle + np.timedelta64(1, "h")))["counts"].load()

    cube = archive.lightcurves(FIRST, stop)
    for what, function in (
        ("open", opened),
        ("read counts", lambda: cube["counts"].compute()),
        ("open, one hour", hour),
    ):
        seconds = min(_timed(function) for _ in range(3))
        _say(f"{name:16s} {what:14s} {seconds:6.3f} s")


def _read_fits(folder: Path) -> None:
    np.concatenate([np.asarray(fits.getdata(path)["counts"]) for path in sorted(folder.glob("*.fits"))])


def _timed(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
