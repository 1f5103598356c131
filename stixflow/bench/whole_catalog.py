"""An archive as large as the mission's, without its data: what planning and questions cost when it is full.

Every row of the catalog is written through the catalog itself, so that filling it measures what a coordinator pays for
each item; stores, packet sets and maps are empty files in the places where a glance looks for them.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stixflow.archive import (
    Archive,
    FileEntry,
    PacketSet,
    Partition,
    collect,
    day_key,
    open_archive,
    request_key,
    store_path,
)
from stixflow.cubes.store import MANIFEST
from stixflow.provenance import input_digest, new_run_id

FIRST = date(2020, 4, 14)
_DAY_PRODUCTS = (
    "ql_lightcurve", "ql_background", "ql_spectra", "ql_variance", "ql_flareflag", "hk_mini", "hk_maxi", "tm_status",
    "ephemeris",
)  # fmt: skip
"""Products of every day; the tenth partition of a day is its quiet pixel request."""
_NS_DAY = 86_400 * 10**9


@dataclass(frozen=True, slots=True)
class Size:
    """How much there is of everything."""

    days: int = 2500
    flares: int = 25_000
    images_per_flare: int = 8
    spectrograms: int = 2_500

    @property
    def requests(self) -> int:
        """Pixel requests of flares, a quiet one each day, and spectrograms."""
        return self.flares + self.days + self.spectrograms


def fill(root: Path, size: Size, *, progress: Callable[[str, int, int], None] | None = None) -> dict[str, float]:
    """Make the archive and return the CPU seconds that each kind of catalog write took, by item."""
    archive, run_id = open_archive(root, create=True), new_run_id()
    catalog = archive.catalog
    catalog.begin_run(run_id, "bench", code_version="bench")
    spent = dict.fromkeys(("register_file", "publish", "flares", "images"), 0.0)
    items = dict.fromkeys(spent, 0)

    def clocked(kind: str, call: Callable[[], object], n: int = 1) -> None:
        started = time.process_time()
        call()
        spent[kind] += time.process_time() - started
        items[kind] += n

    for number in range(size.days):
        drafts = [*_day_partitions(number, run_id), *_requests(number, size, run_id)]
        file, sets = _delivery(number, drafts)
        clocked("register_file", partial(catalog.register_file, file, run_id=run_id, packet_sets=sets))
        clocked("publish", partial(_publish, archive, drafts), len(drafts))
        flares = _flares(number, size)
        light = catalog.current("ql_lightcurve", day_key(_day(number)))
        assert light is not None
        clocked("flares", partial(catalog.replace_flares, light.id, flares))
        catalog.mark_done("flares", {str(light.id): "x"}, run_id=run_id)
        for flare in flares:
            images = list(_images(flare, size.images_per_flare, run_id))
            clocked("images", partial(_record_images, archive, flare, images, run_id))
            _touch(root, [image["path"] for image in images])
        _touch(root, [f"{draft.path}/{MANIFEST}" for draft in drafts] + [one.path for one in sets])
        if progress:
            progress("catalog", number + 1, size.days)
    catalog.finish_run(run_id)
    archive.close()
    return {kind: spent[kind] / max(items[kind], 1) for kind in spent}


def _publish(archive: Archive, drafts: Sequence[Partition]) -> None:
    archive.catalog.publish(*archive.catalog.stage_all(drafts))


def _record_images(archive: Archive, flare: dict[str, Any], images: list[dict[str, Any]], run_id: str) -> None:
    catalog = archive.catalog
    name = str(flare["flare_id"])
    catalog.replace_images({name: images}, run_id=run_id)
    catalog.locate_flares({name: {"x_hpc": 1.0, "y_hpc": 2.0, "is_ambiguous": False}})
    catalog.mark_done("images", {name: "x"}, run_id=run_id)


def _touch(root: Path, paths: list[str]) -> None:
    for path in paths:
        place = f"{root}/{path}"
        os.makedirs(os.path.dirname(place), exist_ok=True)
        os.close(os.open(place, os.O_CREAT))


def _day(number: int) -> date:
    return FIRST + timedelta(days=number)


def _ns(number: int) -> int:
    return int(np.datetime64(_day(number), "ns").astype(np.int64))


def _flare_number(number: int, size: Size) -> range:
    """Which flares of the mission a day has: evenly spread."""
    return range(number * size.flares // size.days, (number + 1) * size.flares // size.days)


def _flare_span(number: int, flare: int, size: Size) -> tuple[int, int, int]:
    mine = _flare_number(number, size)
    step = _NS_DAY // (len(mine) + 1)
    peak = _ns(number) + (flare - mine.start + 1) * step
    return peak - 200 * 10**9, peak, peak + 400 * 10**9


def _flares(number: int, size: Size) -> list[dict[str, Any]]:
    rows = []
    for flare in _flare_number(number, size):
        start, peak, stop = (np.datetime64(value, "ns") for value in _flare_span(number, flare, size))
        rows.append({"flare_id": f"F{flare:06d}", "start": start, "peak": peak, "stop": stop, "peak_counts": 1e3,
                     "goes_class": "C1.0", "background": 250.0, "duration_s": 600.0})  # fmt: skip
    return rows


def _images(flare: dict[str, Any], n: int, run_id: str) -> Iterator[dict[str, Any]]:
    day = str(flare["peak"])[:10].replace("-", "/")
    for index in range(n):
        name = f"{flare['flare_id']}-{index}"
        yield {
            "image_id": name, "flare_id": flare["flare_id"], "method": "clean", "energy_low": 4.0, "energy_high": 10.0,
            "start": flare["start"], "stop": flare["stop"], "digest": "0" * 64, "x_hpc": 1.0, "y_hpc": 2.0,
            "path": f"images/{day}/{flare['flare_id']}/{run_id}/{name}.fits", "counts": 1e4, "net_counts": 9e3,
            "sources": [{"x": 1.0, "y": 2.0, "flux": 3.0}],
        }  # fmt: skip


def _day_partitions(number: int, run_id: str) -> Iterator[Partition]:
    start = _ns(number)
    for product in _DAY_PRODUCTS:
        attrs: dict[str, object] = {"product": product, "clock": "anchor", "books": {"packets": 100}}
        if product == "ephemeris":
            attrs["distance_m"] = 1.0e11
        yield _partition(product, day_key(_day(number)), number, (start, start + _NS_DAY), run_id, attrs)


def _requests(number: int, size: Size, run_id: str) -> Iterator[Partition]:
    spans = [_flare_span(number, flare, size) for flare in _flare_number(number, size)]
    quiet = _ns(number) + 60 * 10**9
    wanted = [("sci_pixels", (quiet, quiet + 3200 * 10**9))]
    wanted += [("sci_pixels", (start, stop)) for start, _, stop in spans]
    if number < size.spectrograms:
        wanted.append(("sci_spectrogram", (spans[0][0], spans[0][2]) if spans else wanted[0][1]))
    for index, (product, span) in enumerate(wanted):
        request_id = int(_day(number).strftime("%y%m%d")) * 10_000 + index
        attrs: dict[str, object] = {
            "channel_start": 1, "channel_stop": 32, "detector_mask": 0xFFFFFFFF, "pixel_mask": 0xFFF, "rcr_max": 0,
            "duration_s": (span[1] - span[0]) / 1e9, "product": product, "clock": "anchor",
        }  # fmt: skip
        key = request_key(request_id, 0xC000 + index)
        yield _partition(product, key, number, span, run_id, attrs, request_id=request_id, seq_control=0xC000 + index)


def _partition(
    product: str, key: str, number: int, span: tuple[int, int], run_id: str, attrs: dict[str, object], **more: Any
) -> Partition:
    digest = hashlib.sha256(f"{product} {key}".encode()).hexdigest()
    return Partition(
        run_id=run_id, product=product, key=key, day=_day(number), path=store_path(product, key, _day(number), run_id),
        digest=digest, input_digest=input_digest([digest]), code_version="bench", n_time=100, boxes=1, counts_sum=1,
        n_bytes=1, start=np.datetime64(span[0], "ns"), stop=np.datetime64(span[1], "ns"), attrs=attrs, **more,
    )  # fmt: skip


def _delivery(number: int, drafts: list[Partition]) -> tuple[FileEntry, list[PacketSet]]:
    """One file a day, with one packet set for each partition."""
    digest = hashlib.sha256(f"file {number}".encode()).hexdigest()
    sets = [
        PacketSet(d.product, d.key, d.digest, f"packets/{d.product}/{d.key}/{d.digest[:32]}.bin", 10, digest,
                  {"n_home": 10, "name": f"{number}"})
        for d in drafts
    ]  # fmt: skip
    return FileEntry(digest, f"day{number:04d}.bin", "telemetry", 8_000_000, 10, 10, 0, 0), sets


def measure_questions(root: Path) -> list[dict[str, Any]]:
    """CPU seconds of planning each stage of a run that has everything to do, and of what people ask."""
    from stixflow.archive.months import stale_months
    from stixflow.compute import Serial
    from stixflow.stages import archive_status, open_run
    from stixflow.stages.cubes import stale_partitions
    from stixflow.stages.flares import plan_days
    from stixflow.stages.images import plan_images

    rows = []

    def clocked(what: str, call: Callable[[], Any]) -> None:
        started = time.process_time()
        found = call()
        n = len(found) if hasattr(found, "__len__") else None
        rows.append({"what": what, "seconds": time.process_time() - started, "found": n})

    with open_run(str(root), pool=Serial(), command="bench") as run:
        clocked("plan cubes", lambda: stale_partitions(run))
        clocked("plan months", lambda: stale_months(run.archive.catalog, run.archive.root))
        clocked("plan flares", lambda: plan_days(run))
        clocked("plan images", lambda: plan_images(run))
    archive = open_archive(root)
    clocked("status", lambda: archive_status(str(root)))
    clocked("lost", archive.lost)
    clocked("flares", archive.flares)
    clocked("images", archive.images)
    clocked("images of one flare", lambda: archive.images("F000010"))
    clocked("requests", archive.requests)
    clocked("at one moment", lambda: archive.at("2020-05-01T12:00"))
    clocked("garbage", lambda: collect(archive, dry_run=True).marked)
    archive.close()
    return rows
