"""A simulated day from telemetry to images in this process, and what is asked of the archive that comes of it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from stixflow.archive import Archive, open_archive
from stixflow.bench.bucket import ROOT, counted_bucket
from stixflow.bench.days import Delivery, deliver
from stixflow.bench.measuring import Row, measure
from stixflow.compute import Serial
from stixflow.stages import STAGES, bind, open_run

DAY = date(2022, 6, 15)


def process_day(delivery: Delivery, root: str, catalog: str | None = None) -> dict[str, Any]:
    """Run every stage on a day and return the report, with the CPU time of each stage added.

    Raises
    ------
    RuntimeError
        If something failed: figures of half a day are none.
    """
    seconds = {}
    with open_run(root, catalog=catalog, pool=Serial(), command="stixflow bench") as run:
        stages = bind(run, [delivery.telemetry, delivery.ephemeris])
        for name in STAGES:
            started = time.process_time()
            stages[name]()
            seconds[name] = time.process_time() - started
        report = run.report()
    if report["failed"]:
        raise RuntimeError(f"the day was not processed: {report['failed'][0]}")
    return report | {"cpu_seconds": seconds}


def measure_end_to_end(*, quick: bool = False) -> list[Row]:
    """Process a day twice, the first time to import; one row a stage of the second."""
    with tempfile.TemporaryDirectory(prefix="stixflow-bench-") as folder:
        day = deliver(DAY, Path(folder), flares=2.0 if quick else 10.0, seed=7)
        process_day(day, f"{folder}/warm-up")
        report = process_day(day, f"{folder}/day")
    rows: list[Row] = [
        {"what": name, "seconds": report["cpu_seconds"][name], "items": report["cost"][name]["items"]}
        for name in STAGES
    ]
    return [
        *rows,
        {"what": "the day", "seconds": sum(report["cpu_seconds"].values()), "bytes": day.n_bytes,
         "packets": report["balance"]["packets_in"], "images": report["counts"].get("images", 0)},
    ]  # fmt: skip


def measure_queries(*, quick: bool = False) -> list[Row]:
    """Ask what analysts ask of an archive in a bucket in memory: time, requests and bytes of each question."""
    with counted_bucket() as counts, tempfile.TemporaryDirectory(prefix="stixflow-bench-") as folder:
        catalog = f"sqlite:///{folder}/catalog.sqlite"
        process_day(deliver(DAY, Path(folder), flares=2.0 if quick else 6.0, seed=7), f"{ROOT}/archive", catalog)
        archive = open_archive(f"{ROOT}/archive", catalog=catalog)
        rows: list[Row] = []
        for what, ask in questions(archive).items():
            before = counts.copy()
            ask()
            asked = {name: counts[name] - before[name] for name in ("requests", "bytes_read")}
            rows.append({"what": what, **asked, **measure(ask, repetitions=2 if quick else 5, warm=False)})
        archive.close()
    return rows


def questions(archive: Archive) -> dict[str, Callable[[], object]]:
    """Name the questions: light curves, a request, an image cut, a light curve of pixels, tables."""
    request = int(archive.requests(kind="pixels")["request_id"].iloc[-1])
    image = str(archive.images()["image_id"].iloc[0])
    return {
        "light curves of a day": lambda: archive.lightcurves(DAY, "2022-06-16")["counts"].values,
        "a pixel request": lambda: archive.pixels(request)["counts"].values,
        "a minute of a request": lambda: archive.pixels(request)["counts"][:6].values,
        "light curve of pixels": lambda: archive.pixel_lightcurve(request, energy_range=(4, 10))["counts"].values,
        "table of flares": archive.flares,
        "table of requests": archive.requests,
        "a map": lambda: archive.map(image),
    }
