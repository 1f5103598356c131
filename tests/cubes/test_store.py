from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import xarray as xr
import zarr
from example_cubes import make_dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stixflow.cubes import files, store
from stixflow.cubes.model import PRODUCTS, Layout
from stixflow.cubes.store import count_boxes, delete_store, open_store, verify_store, write_store
from stixflow.cubes.store.encoding import _blosc
from stixflow.errors import SchemaError, StoreError, UsageError

TIGHT = {
    name: Layout({"time": 4, "energy": 3}, shard_time=8 if name == "sci_pixels" else None, whole_bytes=0, level=1)
    for name in PRODUCTS
}
"""Layouts with chunks so small that small data have many, with ragged ends."""


@pytest.fixture
def url(tmp_path: Path) -> Path:
    return tmp_path / "product" / "run.zarr"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    product=st.sampled_from(list(PRODUCTS)),
    sizes=st.lists(st.tuples(st.integers(1, 21), st.integers(1, 8)), min_size=1, max_size=3),
    counts_dtype=st.sampled_from(["uint32", "uint64"]),
    tight=st.booleans(),
    seed=st.integers(0, 5),
)
def test_what_was_written_is_what_opens(
    tmp_path_factory: pytest.TempPathFactory,
    product: str,
    sizes: list[tuple[int, int]],
    counts_dtype: str,
    tight: bool,
    seed: int,
) -> None:
    boxes = [
        make_dataset(product, n_time=times, n_energy=energies, counts_dtype=counts_dtype, seed=seed + index)
        for index, (times, energies) in enumerate(sizes)
    ]
    url = tmp_path_factory.mktemp("store") / "run.zarr"
    record = write_store(url, boxes, layout=TIGHT[product] if tight else None)
    for index, box in enumerate(boxes):
        xr.testing.assert_identical(open_store(url, index, digest=record.digest).load(), box)
        xr.testing.assert_identical(open_store(url, index, dask=True).compute(), box)
    assert verify_store(url, record.digest) == []
    assert count_boxes(url) == record.boxes == len(boxes)
    assert record.n_time == sum(times for times, _ in sizes)
    assert record.counts_sum == sum(int(box["counts"].sum()) for box in boxes if "counts" in box)


def test_values_are_read_when_used(url: Path) -> None:
    write_store(url, [make_dataset("sci_pixels")])
    dataset = open_store(url)
    assert not dataset["counts"].variable._in_memory
    assert dataset["counts"].chunks is None
    assert open_store(url, dask=True)["counts"].chunks is not None


def test_the_store_is_plain_zarr_for_others(url: Path) -> None:
    dataset = make_dataset("sci_pixels", n_time=700, n_energy=8)
    write_store(url, [dataset])
    counts = zarr.open_array(url / "0" / "counts", mode="r")
    assert (counts[...] == dataset["counts"].values).all()
    assert counts.shards == (720, 8, 32, 12)
    assert counts.chunks == (120, 8, 32, 12)
    assert counts.metadata.dimension_names == dataset["counts"].dims
    blosc = counts.metadata.codecs[0].codecs[1].to_dict()["configuration"]
    assert (blosc["cname"], blosc["clevel"], blosc["shuffle"], blosc["typesize"]) == ("zstd", 3, "bitshuffle", 4)
    assert dict(counts.attrs) == {"units": "1", "long_name": "decompressed counts"}
    scet = zarr.open_array(url / "0" / "scet", mode="r")
    assert (scet[...] == dataset["scet"].values).all()


def test_a_day_of_light_curves_is_one_object_a_variable(url: Path) -> None:
    record = write_store(url, [make_dataset("ql_lightcurve", n_time=21600)])
    n_variables = len(PRODUCTS["ql_lightcurve"].variables)
    assert record.n_objects == 2 * n_variables + 2  # values and metadata of each, the group, the root


def test_empty_shards_are_written(url: Path) -> None:
    dataset = make_dataset("sci_pixels", n_time=20, n_energy=4)
    dataset["counts"][...] = 0
    write_store(url, [dataset], layout=TIGHT["sci_pixels"])
    shards = [path for path in (url / "0" / "counts").rglob("*") if path.is_file() and path.name != "zarr.json"]
    assert len(shards) == 3


class TestRecord:
    def test_digest_is_that_of_the_content(self, tmp_path: Path) -> None:
        first = write_store(tmp_path / "a.zarr", [make_dataset("sci_pixels")])
        same = write_store(tmp_path / "b.zarr", [make_dataset("sci_pixels")])
        other = write_store(tmp_path / "c.zarr", [make_dataset("sci_pixels", seed=1)])
        assert first.digest == same.digest != other.digest

    def test_equal_values_are_equal_bytes_whatever_the_threads(self) -> None:
        from numcodecs import blosc

        values = np.random.default_rng(1).poisson(300, (57600, 5)).astype("u4")
        before = blosc.set_nthreads(4)
        try:
            assert len({_blosc(4, 3)(values) for _ in range(40)}) == 1
        finally:
            blosc.set_nthreads(before)

    def test_span_is_half_open_in_bins(self, url: Path) -> None:
        start = np.datetime64("2022-11-09T00:00:00", "ns")
        record = write_store(url, [make_dataset("ql_lightcurve", n_time=10, step_s=4.0, start=start)])
        assert (record.start, record.stop) == (start, start + np.timedelta64(40, "s"))

    def test_axes_differ_where_energies_do(self, tmp_path: Path) -> None:
        first = write_store(tmp_path / "a.zarr", [make_dataset("ql_lightcurve", n_energy=5)])
        later = write_store(tmp_path / "b.zarr", [make_dataset("ql_lightcurve", n_energy=5, seed=3, n_time=99)])
        other = write_store(tmp_path / "c.zarr", [make_dataset("ql_lightcurve", n_energy=4)])
        assert first.axes == later.axes != other.axes
        assert first.structure == later.structure == other.structure


class TestRefusals:
    def test_a_dataset_outside_the_model(self, url: Path) -> None:
        with pytest.raises(SchemaError, match="triggers is missing"):
            write_store(url, [make_dataset("sci_pixels").drop_vars("triggers")])
        assert not url.parent.exists()

    def test_boxes_of_two_requests(self, url: Path) -> None:
        boxes = [make_dataset("sci_pixels"), make_dataset("sci_pixels", request_id=1)]
        with pytest.raises(SchemaError, match="differ in request_id"):
            write_store(url, boxes)

    def test_no_box(self, url: Path) -> None:
        with pytest.raises(UsageError, match="no Dataset"):
            write_store(url, [])

    def test_a_box_that_is_not_there(self, url: Path) -> None:
        write_store(url, [make_dataset("sci_pixels")])
        with pytest.raises(UsageError, match="no box 4"):
            open_store(url, 4)

    def test_overwriting(self, url: Path) -> None:
        record = write_store(url, [make_dataset("sci_pixels")])
        with pytest.raises(StoreError, match="exists with other content"):
            write_store(url, [make_dataset("sci_pixels", seed=1)])
        assert verify_store(url, record.digest) == []

    def test_writing_the_same_twice_is_writing_once(self, url: Path) -> None:
        assert write_store(url, [make_dataset("sci_pixels")]) == write_store(url, [make_dataset("sci_pixels")])

    def test_unknown_storage(self) -> None:
        with pytest.raises(UsageError, match="scheme gopher"):
            open_store("gopher://host/run.zarr")


class TestKillPoints:
    @pytest.mark.parametrize("after", [0, 1, 7, 25])
    def test_killed_while_writing_leaves_no_store_and_the_next_run_heals(self, url: Path, after: int) -> None:
        dataset = make_dataset("sci_pixels")
        with patch.object(files.shutil, "rmtree"), pytest.raises(_Killed):
            _write_with(url, dataset, after, _Killed())
        assert not url.exists()
        with pytest.raises(StoreError, match="not there, or was never completed"):
            open_store(url)
        record = write_store(url, [dataset])
        assert verify_store(url, record.digest) == []

    def test_disc_full_says_so_and_leaves_nothing(self, url: Path) -> None:
        with pytest.raises(StoreError, match="No space left"):
            _write_with(url, make_dataset("sci_pixels"), 9, OSError(errno.ENOSPC, "No space left on device"))
        assert list(url.parent.iterdir()) == []

    def test_objects_without_a_manifest_are_no_store_and_give_way(self, url: Path) -> None:
        write_store(url, [make_dataset("sci_pixels", seed=5)])
        (url / store.MANIFEST).unlink()
        with pytest.raises(StoreError, match="never completed"):
            open_store(url)
        record = write_store(url, [make_dataset("sci_pixels")])
        assert verify_store(url, record.digest) == []

    def test_deleting_twice(self, url: Path) -> None:
        write_store(url, [make_dataset("sci_pixels")])
        delete_store(url)
        delete_store(url)
        assert not url.exists()


class _Killed(BaseException):
    """Stands for SIGKILL: no handler of the writer may run to the end."""


def _write_with(url: Path, dataset: xr.Dataset, after: int, error: BaseException) -> None:
    left = [after]
    write = Path.write_bytes

    def failing(self: Path, data: bytes) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise error
        return write(self, data)

    with patch.object(Path, "write_bytes", failing):
        write_store(url, [dataset])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(bytes(data))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _forget(path: Path) -> None:
    """Lose a shard and its line in the manifest."""
    key = path.relative_to(path.parents[2]).as_posix()
    path.unlink()
    manifest_path = path.parents[2] / store.MANIFEST
    manifest = json.loads(manifest_path.read_text())
    del manifest["objects"][key]
    text = "".join(f"{name} {size} {digest}\n" for name, (size, digest) in sorted(manifest["objects"].items()))
    manifest["digest"] = hashlib.sha256(text.encode()).hexdigest()
    manifest_path.write_text(json.dumps(manifest))


SHARD, COUNTS, ROOT = "0/counts/c.0.0.0.0", "0/counts/zarr.json", "zarr.json"
DAMAGE: dict[str, tuple[str, Callable[[Path], None], str, bool]] = {
    "shard missing": (SHARD, Path.unlink, "is missing", True),
    "shard cut short": (SHARD, _cut, "bytes instead of", True),
    "shard flipped": (SHARD, _flip, "differs from its SHA-256", False),
    "metadata flipped": (COUNTS, _flip, "differs from its SHA-256", False),
    "root missing": (ROOT, Path.unlink, "is missing", True),
    "manifest flipped": (store.MANIFEST, _flip, "manifest", True),
    "manifest missing": (store.MANIFEST, Path.unlink, "never completed", True),
    "shard and its line lost": (SHARD, _forget, "implied by the metadata", True),
    "object too many": ("0/counts/c.9", lambda path: path.write_bytes(b"soup"), "is not in the manifest", False),
}


@pytest.mark.parametrize("damage", list(DAMAGE))
def test_damage_is_reported_and_never_reads_as_zero(url: Path, damage: str) -> None:
    key, harm, expected, refused = DAMAGE[damage]
    record = write_store(url, [make_dataset("sci_pixels")])
    harm(url / key)
    defects = verify_store(url, record.digest)
    assert [defect for defect in defects if expected in str(defect)], defects
    if refused:
        with pytest.raises(StoreError):
            open_store(url, digest=record.digest)


def test_another_store_in_its_place_is_reported(tmp_path: Path) -> None:
    record = write_store(tmp_path / "a.zarr", [make_dataset("sci_pixels")])
    write_store(tmp_path / "b.zarr", [make_dataset("sci_pixels", seed=1)])
    assert "has the digest" in str(verify_store(tmp_path / "b.zarr", record.digest)[0])
    with pytest.raises(StoreError, match="has the digest"):
        open_store(tmp_path / "b.zarr", digest=record.digest)


@pytest.mark.parametrize("n_time", [12, 400])
def test_a_store_that_is_removed_while_it_is_open_never_reads_as_zero(url: Path, n_time: int) -> None:
    """Single chunks and shards: the metadata of an open cube are in memory, its values are not."""
    write_store(url, [make_dataset("sci_pixels", n_time=n_time)])
    lazy, joined = open_store(url), open_store(url, dask=True)
    (shard,) = (url / "0" / "counts").glob("c.*")
    shard.unlink()
    for cube in (lazy, joined):
        with pytest.raises(StoreError, match="lost an object of 0/counts"):
            cube["counts"].isel(energy=0).load()
