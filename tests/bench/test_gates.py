"""Numbers that do not depend on the machine, held to a table: requests, bytes, objects, tasks, commits, memory.

`gates.toml` gives each with its reason. Counts are exact, bytes and memory are limits. Who changes one on purpose
changes the table with it.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from example_cubes import make_dataset
from example_delivery import DAYS
from held_memory import peak_memory

from stixflow.archive import Archive, open_archive
from stixflow.bench.bucket import ROOT, counted_bucket
from stixflow.bench.days import other_products
from stixflow.bench.decode import decode_all
from stixflow.bench.imaging import flare_stack
from stixflow.compute import Serial, map_batches
from stixflow.cubes.store import open_joined, open_store, verify_store, write_store
from stixflow.imaging import Clean, Grid, reconstruct
from stixflow.stages import run_stages
from stixflow.time import to_utc

GATES: dict[str, dict[str, Any]] = tomllib.loads(Path(__file__).with_name("gates.toml").read_text())
_LIMITS = ("bytes_read", "bytes_written", "peak_bytes")


@dataclass
class World:
    """An archive in a bucket that counts."""

    counts: Counter[str]
    archive: Archive
    report: dict[str, Any]
    made: dict[str, int]


@pytest.fixture(scope="module")
def world(delivery: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    place = tmp_path_factory.mktemp("catalog") / "catalog.sqlite"
    with counted_bucket() as counts:
        root, catalog = f"{ROOT}/archive", f"sqlite:///{place}"
        report = run_stages(
            ("ingest", "cubes", "flares"), [delivery], root=root, catalog=catalog, pool=Serial(), command="test"
        )
        made, archive = dict(counts), open_archive(root, catalog=catalog)
        yield World(counts, archive, report, made)
        archive.close()


def check(name: str, found: dict[str, int]) -> None:
    gate = GATES[name]
    assert gate["why"]
    for what, wanted in gate.items():
        if what in _LIMITS:
            assert found[what] <= wanted, f"{name}: {what} is {found[what]}, at most {wanted}: {gate['why']}"
            assert found[what] >= 0.5 * wanted, f"{name}: {what} is {found[what]}: lower the limit of {wanted}"
        elif what != "why":
            assert found[what] == wanted, f"{name}: {what} is {found[what]}, not {wanted}: {gate['why']}"


def asked(world: World, call: Callable[[], object]) -> dict[str, int]:
    before = Counter(world.counts)
    call()
    return {name: world.counts[name] - before[name] for name in ("requests", "bytes_read", "bytes_written", "put")}


def test_every_gate_is_tested() -> None:
    tested = Path(__file__).read_text()
    assert not [name for name in GATES if f'"{name}"' not in tested]


def test_reading(world: World) -> None:
    archive = world.archive
    request = int(archive.requests(kind="pixels")["request_id"].iloc[0])
    questions: dict[str, Callable[[], object]] = {
        "open a day": lambda: archive.lightcurves(DAYS[1], "2022-06-17"),
        "counts of a day": lambda: archive.lightcurves(DAYS[1], "2022-06-17")["counts"].values,
        "a pixel request": lambda: archive.pixels(request)["counts"].values,
        "glance for lost stores": archive.lost,
        "table of requests": archive.requests,
    }
    for name, ask in questions.items():
        check(name, asked(world, ask))


def test_writing(world: World) -> None:
    day = make_dataset("ql_lightcurve", n_time=21600)
    check("write a day", asked(world, lambda: write_store(f"{ROOT}/new/day.zarr", [day])))
    check("verify a day", asked(world, lambda: verify_store(f"{ROOT}/new/day.zarr")))
    pixels = make_dataset("sci_pixels", n_time=200, n_energy=20)
    check("write a request", asked(world, lambda: write_store(f"{ROOT}/new/request.zarr", [pixels])))
    energy = asked(world, lambda: open_store(f"{ROOT}/new/request.zarr")["counts"][:, 3].values)
    check("one energy of a request", energy)


def test_a_run(world: World) -> None:
    cost = world.report["cost"]
    check("a run", {
        "items": sum(one["items"] for one in cost.values()),
        "put": world.made["put"],
        "bytes_written": world.made["bytes_written"],
    })  # fmt: skip


def test_a_year_is_a_task_a_month_and_variable(tmp_path: Path) -> None:
    stores = []
    for month in range(1, 4):
        start = np.datetime64(f"2022-{month:02}-01", "ns")
        place = tmp_path / f"{month}.zarr"
        write_store(place, [make_dataset("ql_lightcurve", n_time=50, start=start)])
        stores.append((str(place), None))
    joined = open_joined(stores)
    check("joined stores", {"tasks": len(joined["counts"].__dask_graph__()), "blocks": len(joined["counts"].chunks[0])})


def test_memory() -> None:
    stream = other_products(to_utc("2022-06-15").astype("datetime64[D]").item())
    decode_all(stream, len)
    check("decode a day", {"peak_bytes": peak_memory(lambda: decode_all(stream, len))})
    stack, grid = flare_stack(64), Grid(65, 2.0)
    reconstruct(stack, grid, Clean())
    check("clean 64 images", {"peak_bytes": peak_memory(lambda: reconstruct(stack, grid, Clean()))})


class _Counting(Serial):
    """Two slots, and a count of what is asked and of what waits at most."""

    slots = 2

    def __init__(self) -> None:
        super().__init__()
        self.tasks = self.flying = self.most = 0

    def submit(self, *call: Any, **more: Any) -> object:
        self.tasks, self.flying = self.tasks + 1, self.flying + 1
        self.most = max(self.most, self.flying)
        return super().submit(*call, **more)

    def wait(self) -> tuple[object, Any]:
        self.flying -= 1
        return super().wait()


def test_batches_of_many_items() -> None:
    pool = _Counting()
    assert len(list(map_batches(abs, range(1000), pool=pool, batch_size=50))) == 1000
    check("a thousand short items", {"tasks": pool.tasks, "in_flight": pool.most})


def test_peak_memory_is_what_a_call_adds() -> None:
    assert 10_000_000 <= peak_memory(lambda: bytearray(10_000_000)) < 10_100_000
