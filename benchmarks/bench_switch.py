"""How long the switch to a reprocessed mission takes, and what readers see meanwhile, on SQLite and PostgreSQL.

    python benchmarks/bench_switch.py [--days 2500] [--products 10] [--flares 25000] [--images 200000] [--quick]

Fills a catalog with what readers see and an open release of the same size (rows only, no stores), then validates,
switches, and takes the switch back, while another process reads light-curve pointers and images all the time. Prints
one JSON object for each database: seconds of each step (`_cpu_s`: of processor time of this process, in which all of
SQLite runs), reads of the other process and the slowest of them, and how many held a mixture (none may).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from stixflow.archive import Catalog, switch, switch_back, tables
from stixflow.archive.releases import Scope, begin_candidate, drop_release, mark_validated, take_over
from stixflow.archive.tables import PRESENT
from stixflow.archive.transactions import writing
from stixflow.cubes.model import PRODUCTS
from stixflow.stages.validate import validate

NAME = "new"
DAY_NS = 86_400 * 10**9
FIRST = date(2020, 6, 1)
_PIECE = 5000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=2500)
    parser.add_argument("--products", type=int, default=10)
    parser.add_argument("--flares", type=int, default=25_000)
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), help="only one of them")
    parser.add_argument("--quick", action="store_true", help="a hundredth of it, SQLite only")
    options = parser.parse_args()
    if options.quick:
        options.days, options.flares, options.images = 25, 250, 2000
    for name, place in (("sqlite", _sqlite), ("postgresql", _postgres)):
        if name != (options.database or ("sqlite" if options.quick else name)):
            continue
        with place() as url:
            told = measure(url, options.days, options.products, options.flares, options.images)
        sys.stdout.write(json.dumps({"database": name, **told}) + "\n")
        sys.stdout.flush()
        assert told["mixtures"] == 0, told


def measure(url: str, days: int, products: int, flares: int, images: int) -> dict[str, Any]:
    """Fill a catalog and measure each step on it."""
    catalog = Catalog(url)
    found: dict[str, Any] = {"partitions": days * products, "flares": flares, "images": images}
    found |= _measured("fill", lambda: fill(catalog, days, products, flares, images))
    found |= _measured("take_over", lambda: take_over(catalog, NAME))
    mine = Catalog(url, release=NAME)
    found |= _measured("validate", lambda: validate(catalog, mine, release=NAME))
    mark_validated(catalog, NAME, {}, passed=True)
    with _reader(url) as seen:
        time.sleep(1.0)
        quiet = len(seen)
        found |= _measured("switch", lambda: switch(catalog, NAME))
        after = len(seen)
        found |= _measured("back", lambda: switch_back(catalog, NAME))
        time.sleep(0.5)
        reads = list(seen)
    found["reads"] = len(reads)
    found["slowest_read_before_s"] = round(max(one[0] for one in reads[:quiet]), 3)
    found["slowest_read_during_switch_s"] = round(max((one[0] for one in reads[quiet:after]), default=0.0), 3)
    found["mixtures"] = sum(one[1] > 1 for one in reads)
    found |= _measured("drop", lambda: drop_release(catalog, NAME, force=True))
    mine.close()
    catalog.close()
    return found


def fill(catalog: Catalog, days: int, products: int, flares: int, images: int) -> None:
    """Write rows of what readers see and of an open release of the same size."""
    begin_candidate(catalog, NAME, Scope(), made_by={"code": "2"})
    ids = days * products
    with writing(catalog.engine) as connection:
        for offset, release in ((0, PRESENT), (ids, NAME)):
            run = "old" if release == PRESENT else NAME
            rows = [_partition(offset + n + 1, n, products, run) for n in range(ids)]
            _insert(connection, tables.partition, rows)
            keys = [{name: row[name] for name in ("product", "key")} | {"partition_id": row["id"]} for row in rows]
            if release == PRESENT:
                spans = [
                    key | {"revision": 1, "start": row["start"], "stop": row["stop"]}
                    for key, row in zip(keys, rows, strict=True)
                ]
                _insert(connection, tables.current, spans)
                sets = [key | {"digest": "d", "path": "p", "n_packets": 1, "file_digest": "f"} for key in keys]
                _insert(connection, tables.packet_set, [_without(one) | {"run_id": "", "attrs": "{}"} for one in sets])
            else:
                _insert(connection, tables.release_partition, [key | {"release": NAME, "taken": False} for key in keys])
            _insert(connection, tables.flare, [_flare(n, offset, days, products, release) for n in range(flares)])
            places = [{"release": release, "flare_id": f"f{n}", "attrs": '{"x_hpc": 1.0}'} for n in range(flares)]
            _insert(connection, tables.location, places)
            _insert(connection, tables.image, [_image(n, flares, days, release, run) for n in range(images)])
            marks = [("images", f"f{n}") for n in range(flares)]
            marks += [("flares", str(offset + n * products + 1)) for n in range(days)]
            same = {"release": release, "input_digest": "i", "run_id": run, "created": 0}
            _insert(connection, tables.done, [same | {"stage": stage, "item": item} for stage, item in marks])
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SELECT setval(pg_get_serial_sequence('partition', 'id'), 10000000)")


def _without(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "partition_id"}


def _partition(number: int, n: int, products: int, run: str) -> dict[str, Any]:
    day = FIRST + timedelta(days=n // products)
    start = (day - date(1970, 1, 1)).days * DAY_NS
    name = ["ql_lightcurve", *(one for one in PRODUCTS if one != "ql_lightcurve")][n % products]
    fixed = {"code_version": run, "data_model_version": 1, "n_time": 10, "boxes": 1, "counts_sum": 1, "n_bytes": 1}
    texts = {"structure": "s", "axes": "a", "missing": "", "shrink_reason": "", "attrs": '{"clock": "x"}'}
    return fixed | texts | {
        "id": number, "run_id": run, "product": name, "key": str(day), "day": str(day), "complete": True, "created": 0,
        "state": "published" if run == "old" else "staged", "path": f"{name}/{day}/{run}", "digest": f"{run}{n}",
        "input_digest": f"i{n}", "start": start, "stop": start + DAY_NS,
    }  # fmt: skip


def _flare(n: int, offset: int, days: int, products: int, release: str) -> dict[str, Any]:
    day = n % days
    peak = (FIRST - date(1970, 1, 1)).days * DAY_NS + day * DAY_NS + n * 10**9
    values = {"partition_id": offset + day * products + 1, "flare_id": f"f{n}", "release": release}
    return values | {"start": peak, "peak": peak, "stop": peak, "peak_counts": 1.0, "attrs": '{"goes_class": "C1"}'}


def _image(n: int, flares: int, days: int, release: str, run: str) -> dict[str, Any]:
    moment = (FIRST - date(1970, 1, 1)).days * DAY_NS + n % flares % days * DAY_NS
    attrs = json.dumps(
        {"total_flux": 1.0, "sources": [{"x": 1.0, "y": 2.0, "flux": 3.0}], "background_reason": "score"}
    )
    return {
        "image_id": f"i{n}", "flare_id": f"f{n % flares}", "method": f"m{n // flares}", "energy_low": 4.0,
        "energy_high": 10.0, "start": moment, "stop": moment, "path": f"images/{run}/{n}.fits", "digest": "d" * 64,
        "x_hpc": 1.0, "y_hpc": 2.0, "run_id": run, "created": 0, "attrs": attrs, "release": release,
    }  # fmt: skip


def _insert(connection: Any, table: Any, rows: list[dict[str, Any]]) -> None:
    for first in range(0, len(rows), _PIECE):
        connection.execute(table.insert(), rows[first : first + _PIECE])


@contextmanager
def _reader(url: str) -> Iterator[Any]:
    """Read in another process for a ``with`` block; yields a list of seconds and number of runs seen by each read."""
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        seen, ended = manager.list(), manager.Event()
        process = context.Process(target=read_all_the_time, args=(url, seen, ended))
        process.start()
        while not seen:
            time.sleep(0.05)
        try:
            yield seen
        finally:
            ended.set()
            process.join()


def read_all_the_time(url: str, seen: Any, ended: Any) -> None:
    """Read pointers and images again and again."""
    catalog = Catalog(url)
    stop = str(FIRST + timedelta(days=20))
    while not ended.is_set():
        for call in (lambda: catalog.partitions("ql_lightcurve"), lambda: catalog.images(stop=stop)):
            started = time.perf_counter()
            found = call()
            runs = {item["run_id"] if isinstance(item, dict) else item.run_id for item in found}
            seen.append((time.perf_counter() - started, len(runs), len(found)))
    catalog.close()


def _measured(name: str, call: Callable[[], object]) -> dict[str, float]:
    started, cpu = time.perf_counter(), time.process_time()
    call()
    wall, used = time.perf_counter() - started, time.process_time() - cpu
    return {f"{name}_s": round(wall, 2), f"{name}_cpu_s": round(used, 2)}


@contextmanager
def _sqlite() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        yield f"sqlite:///{folder}/catalog.sqlite"


@contextmanager
def _postgres() -> Iterator[str]:
    from services.postgres import serving

    with serving() as server:
        yield server.new_database()


if __name__ == "__main__":
    main()
