"""A profile of measured settings is read strictly, and runs really use it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import zarr

from stixflow.archive import open_archive
from stixflow.compute import Serial
from stixflow.cubes.model import PRODUCTS
from stixflow.errors import MissingFile, UsageError
from stixflow.stages import Science, run_stages
from stixflow.tuning import UNTUNED, Tuning, format_tuning, read_tuning

TIGHT = """
[measured]
command = "by hand"

[fanout]
batch_seconds = 1e-9
window = 1

[layout.ql_lightcurve]
chunks = { time = 5000 }
whole_bytes = 0
level = 1

[layout.sci_pixels]
chunks = { time = 20, energy = 4 }
shard_time = 40
whole_bytes = 0
"""


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    path = tmp_path / "tight.toml"
    path.write_text(TIGHT)
    return path


def test_what_a_profile_does_not_name_is_as_the_data_model_says(profile: Path) -> None:
    tuning = read_tuning(profile)
    assert tuning.layout("sci_pixels").level == PRODUCTS["sci_pixels"].layout.level
    assert tuning.layout("ql_variance") is PRODUCTS["ql_variance"].layout
    assert UNTUNED.layout("sci_pixels") is PRODUCTS["sci_pixels"].layout


def test_a_profile_that_was_written_is_read_back(profile: Path, tmp_path: Path) -> None:
    tuning = read_tuning(profile)
    (tmp_path / "tight").mkdir()
    again = tmp_path / "tight" / "tight.toml"
    again.write_text(format_tuning(tuning, {"command": 'stixflow bench "layout"'}))
    assert read_tuning(again) == tuning


def test_the_name_follows_what_stores_depend_on(profile: Path) -> None:
    name = read_tuning(profile).name
    profile.write_text(TIGHT.replace("window = 1", "window = 2"))
    assert read_tuning(profile).name == name
    profile.write_text(TIGHT.replace("time = 20", "time = 10"))
    assert read_tuning(profile).name != name


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("[fanuot]", "[fanuot] is unknown"),
        ("[fanout]\nwindow = 0", "fanout.window is 0"),
        ("[fanout]\nwindow = 1.5", "fanout.window is 1.5"),
        ("[fanout]\nbatches = 1", "fanout.batches is unknown"),
        ("[layout.sci_pixel]", "layout.sci_pixel is no product"),
        ("[layout.sci_pixels]\nshards = 3", "layout.sci_pixels.shards is unknown"),
        ("[layout.sci_pixels]\nlevel = 23", "layout.sci_pixels.level is 23"),
        ("[layout.sci_pixels]\nchunks = { time = 0 }", "layout.sci_pixels.chunks.time is 0"),
        ("[layout.ql_lightcurve]\nchunks = { pixel = 4 }", "layout.ql_lightcurve.chunks.pixel is no dimension"),
        ("window =", "is not TOML"),
    ],
)
def test_what_a_profile_may_not_say(tmp_path: Path, line: str, told: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(line)
    with pytest.raises(UsageError) as raised:
        read_tuning(path)
    assert told in str(raised.value)


def test_a_profile_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="no tuning profile"):
        read_tuning(tmp_path / "none.toml")


class _Counting(Serial):
    """A pool that counts what it is asked to run: the tasks that Dask would have."""

    def __init__(self) -> None:
        super().__init__()
        self.batches = 0

    def submit(self, *call: Any, **more: Any) -> object:
        self.batches += 1
        return super().submit(*call, **more)


def process(delivery: Path, root: Path, tuning: Path | None) -> int:
    pool = _Counting()
    science = Science(tuning=tuning and str(tuning))
    report = run_stages(("ingest", "cubes"), [delivery], root=str(root), pool=pool, command="test", science=science)
    assert not report["failed"]
    return pool.batches


def test_a_profile_changes_the_chunks_of_stores_and_the_number_of_tasks(
    delivery: Path, tmp_path: Path, profile: Path
) -> None:
    plain = process(delivery, tmp_path / "plain", None)
    tight = process(delivery, tmp_path / "tight", profile)
    assert tight > plain
    one, other = (open_archive(tmp_path / name) for name in ("plain", "tight"))
    for before, after in zip(one.catalog.partitions(), other.catalog.partitions(), strict=True):
        assert (before.product, before.key, before.counts_sum) == (after.product, after.key, after.counts_sum)
        tuned = after.product in ("ql_lightcurve", "sci_pixels")
        assert after.attrs.get("tuning", "") == (read_tuning(profile).name if tuned else "")
        assert (before.digest == after.digest) is not tuned
    pixels = next(item for item in other.catalog.partitions("sci_pixels"))
    counts = zarr.open_array(Path(other.url(pixels.path)) / "0" / "counts", mode="r")
    assert counts.chunks[:2] == (20, 4)
    assert counts.shards[0] == 40
    assert not one.verify()
    assert not other.verify()


def test_the_values_of_two_profiles_are_equal(delivery: Path, tmp_path: Path, profile: Path) -> None:
    roots = (tmp_path / "plain", tmp_path / "tight")
    for root, tuning in zip(roots, (None, profile), strict=True):
        process(delivery, root, tuning)
    one, other = (open_archive(root) for root in roots)
    for item in one.catalog.partitions("sci_pixels"):
        before, after = (archive.pixels(item.request_id).load() for archive in (one, other))
        after.attrs.pop("tuning")
        assert before.identical(after)


def test_batches_follow_the_profile() -> None:
    from stixflow.stages.run import Run

    seen: dict[str, object] = {}
    with patch("stixflow.stages.run.map_batches", lambda *_, **more: (seen.update(more), iter(()))[1]):
        run = Run(None, Serial(), "run", tuning=Tuning(batch_seconds=7.0, window=5))  # type: ignore[arg-type]
        assert list(run.fan_out("stage", str, [1], str)) == []
    assert (seen["batch_seconds"], seen["window"]) == (7.0, 5)


def test_the_profile_that_is_shipped_is_one() -> None:
    tuning = read_tuning(Path(__file__).resolve().parents[1] / "infra/profiles/measured.toml")
    assert tuning.layouts
    assert tuning.window > 0
