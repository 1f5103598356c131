"""Settings follow from measurements, and the whole mission from measured days."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from stixflow.archive import open_archive
from stixflow.bench.bucket import ROOT, counted_bucket
from stixflow.bench.fanout import derive, fit_fanout
from stixflow.bench.layout import candidates, choose, describe, merge_tunings
from stixflow.bench.mission import WHOLE, Mission, SerialPart, fit, whole_mission
from stixflow.bench.whole_catalog import Size, fill, measure_questions
from stixflow.cli import main
from stixflow.cubes.files import open_files
from stixflow.cubes.model import PRODUCTS
from stixflow.tuning import Tuning, read_tuning


def sent(overhead: float, item: float) -> list[dict[str, Any]]:
    rows = [
        {"tasks": 400 // size, "items": 400, "window": 3, "busy_share": 0.9, "batch_size": size}
        for size in (1, 2, 5, 20, 100)
    ]
    for window, busy in ((1, 0.7), (2, 0.985), (3, 0.99), (4, 0.99)):
        rows.append({"tasks": 20, "items": 400, "window": window, "busy_share": busy, "batch_size": 20})
    return [row | {"cpu_seconds": overhead * row["tasks"] + item * row["items"]} for row in rows]


def test_batches_hide_the_overhead_that_was_measured() -> None:
    rows = sent(0.004, 0.002)
    assert fit_fanout(rows) == pytest.approx({"overhead_s": 0.004, "item_s": 0.002})
    tuning = derive(rows)
    assert tuning.batch_seconds == pytest.approx(0.08, abs=0.01)
    assert 0.004 / (0.004 + tuning.batch_seconds) <= 0.05
    assert tuning.window == 2


def test_a_layout_must_be_clearly_cheaper_to_take_the_place_of_the_present_one() -> None:
    now, other = candidates("sci_pixels")[:2]
    assert now == PRODUCTS["sci_pixels"].layout

    def chosen(cost: float) -> object:
        rows = [{"what": describe(other), "layout": other, "cost_s": cost}]
        rows += [{"what": describe(now), "layout": now, "cost_s": 1.0}]
        return choose(sorted(rows, key=lambda row: row["cost_s"]), "sci_pixels").layouts["sci_pixels"]

    assert chosen(0.9) == now
    assert chosen(0.7) == other


def test_profiles_of_two_benchmarks_are_joined() -> None:
    layouts = Tuning("", {"sci_pixels": PRODUCTS["sci_pixels"].layout})
    joined = merge_tunings(layouts, [Tuning("", {}, 0.5, 2)])
    assert joined == Tuning("", layouts.layouts, 0.5, 2)
    assert merge_tunings(Tuning("", {}, 0.5, 2), [layouts]) == joined


def days(n: int = 12) -> list[dict[str, Any]]:
    rng = np.random.default_rng(1)
    rows = []
    for megabytes, images in zip(rng.uniform(1, 15, n), rng.integers(0, 150, n), strict=True):
        seconds = {"ingest": 0.03 + 0.003 * megabytes, "cubes": 0.3 + 0.06 * megabytes, "flares": 0.1,
                   "images": 0.02 * images}  # fmt: skip
        noisy = {name: value * rng.normal(1, 0.01) for name, value in seconds.items()}
        rows.append({"days": 1, "megabytes": megabytes, "days_searched": 1, "images": images, "worker_seconds": noisy})
    return rows


def test_the_mission_is_the_sum_of_what_days_cost() -> None:
    model = fit(days())
    assert model.coefficients["images"]["images"] == pytest.approx(0.02, rel=0.02)
    truth = 2500 * (0.03 + 0.3 + 0.1) + 20_000 * (0.003 + 0.06) + 200_000 * 0.02
    found = model.seconds(WHOLE)
    assert np.median(found) == pytest.approx(truth, rel=0.03)
    assert abs(np.median(found) - truth) < 4 * found.std()


def test_many_cores_end_at_what_is_serial() -> None:
    model, serial = fit(days()), SerialPart(20.0, 0.001, 100_000)
    two, many = whole_mission(model, serial, (2, 10_000))
    assert two["limited_by"] == "the workers"
    assert many["limited_by"] == "the coordinator"
    assert many["hours"] == pytest.approx(120 / 3600)
    assert many["serial_share_of_wall"] == pytest.approx(1.0)
    assert two["low"] <= two["hours"] <= two["high"]
    assert Mission().entries > 80_000


def test_a_full_catalog_is_one_that_the_archive_reads(tmp_path: Path) -> None:
    size = Size(days=12, flares=24, images_per_flare=2, spectrograms=3)
    fill(tmp_path / "archive", size)
    archive = open_archive(tmp_path / "archive")
    assert (len(archive.flares()), len(archive.images()), len(archive.requests())) == (24, 48, size.requests)
    assert not archive.lost()
    found = {row["what"]: row["found"] for row in measure_questions(tmp_path / "archive")}
    assert (found["plan cubes"], found["plan flares"], found["plan images"]) == (0, 12, 24)


def test_the_bucket_in_memory_is_one_and_counts() -> None:
    with counted_bucket() as counts:
        files = open_files(f"{ROOT}/store.zarr")
        files.put({"a": b"12345", "b/c": b"67", "last": b""}, last="last")
        assert files.list() == {"a": 5, "b/c": 2, "last": 0}
        assert dict(files.get_many(["a", "b/c"])) == {"a": b"12345", "b/c": b"67"}
        assert files.present(["a", "x"]) == {"a"}
        assert files.size("a") == 5
        with pytest.raises(FileNotFoundError):
            files.get("x")
        files.remove(first="last")
        assert files.list() == {}
    assert counts["bytes_written"] == counts["bytes_read"] == 7
    assert (counts["put"], counts["get"]) == (3, 3)
    assert fsspec.get_filesystem_class("s3").__module__.startswith("s3fs")


def test_the_command_writes_what_the_other_commands_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, profile = tmp_path / "found.json", tmp_path / "measured.toml"
    arguments = ["bench", "layout", "--quick", "--storage", "bucket", "--output", str(out), "--profile", str(profile)]
    assert main(arguments) == 0
    assert "in shards of 3600" in capsys.readouterr().out
    assert list(read_tuning(profile).layouts) == ["sci_pixels"]
    assert main(["bench", "compare", str(out), str(out), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {row["verdict"] for row in rows} == {"same"}
    assert main(["bench", "compare", str(out)]) == 2
    assert main(["bench", "decode", "--quick", "--profile", str(profile)]) == 2
