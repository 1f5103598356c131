"""Packet sets to one verified partition: the day's border, boxes, what is missing, what is damaged."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from example_delivery import DAYS, pick, telemetry, write
from example_records import spectrogram

from stixflow import jobs
from stixflow.cubes.store import StoreRecord, open_store, verify_store, write_store
from stixflow.errors import BalanceError, StoreError
from stixflow.jobs.frame import Framed
from stixflow.telemetry import Packets, encode
from stixflow.time import TimeRange, to_utc


@pytest.fixture(scope="module")
def packets(delivery: Path) -> Packets:
    return telemetry(delivery)


def frame(packets: Packets, root: Path, name: str = "input.bin") -> dict[tuple[str, str], tuple[str, str]]:
    framed = jobs.frame(jobs.FrameJob(str(write(root / name, packets)), str(root)))
    assert isinstance(framed, Framed)
    return {(item.product, item.key): (item.path, item.digest) for item in framed.sets}


def build(root: Path, product: str, key: str, *inputs: tuple[str, str], run_id: str = "one") -> jobs.Built:
    built = jobs.build(jobs.BuildJob(product, key, inputs, str(root), run_id))
    assert built is not None
    return built


def test_a_day_holds_the_bins_whose_centre_is_in_it(packets: Packets, tmp_path: Path) -> None:
    """The packet that crosses midnight gives each day its own bins: none twice, none lost."""
    sets = frame(packets.of_product("ql_lightcurve"), tmp_path)
    days = []
    for key in DAYS:
        built = build(tmp_path, "ql_lightcurve", key, sets["ql_lightcurve", key])
        days.append(open_store(str(tmp_path / built.path)).load())
        span = TimeRange.of_day(np.datetime64(key).item())
        assert span.covers(days[-1]["time"].values).all()
    assert days[0]["time"].values[-1] < to_utc("2022-06-16") <= days[1]["time"].values[0]
    joined = np.concatenate([day["scet"].values for day in days])
    assert (np.diff(joined) == 4 << 16).all()
    assert joined.size == 9000


def test_a_day_of_which_nothing_is_inside_is_no_partition(packets: Packets, tmp_path: Path) -> None:
    light = packets.of_product("ql_lightcurve")
    sets = frame(pick(light, [0]), tmp_path)
    job = jobs.BuildJob("ql_lightcurve", DAYS[1], (sets["ql_lightcurve", DAYS[0]],), str(tmp_path), "one")
    assert jobs.build(job) is None


def test_packets_are_counted_on_the_day_where_they_start(packets: Packets, tmp_path: Path) -> None:
    sets = frame(packets.of_product("ql_lightcurve"), tmp_path)
    built = [build(tmp_path, "ql_lightcurve", key, sets["ql_lightcurve", key]) for key in DAYS]
    assert [one.n_home for one in built] == [4, 12]


def test_the_same_inputs_give_the_same_store(packets: Packets, tmp_path: Path) -> None:
    sets = frame(packets.of_product("sci_spectrogram"), tmp_path)
    ((product, key), inputs) = sets.popitem()
    first, second = (build(tmp_path, product, key, inputs, run_id=run) for run in ("one", "two"))
    assert first.store.digest == second.store.digest
    assert first.path != second.path
    assert verify_store(str(tmp_path / second.path), second.store.digest) == []
    again = build(tmp_path, product, key, inputs, run_id="one")
    assert again == first


def test_sets_of_overlapping_deliveries_are_joined_once(packets: Packets, tmp_path: Path) -> None:
    light = packets.of_product("sci_spectrogram")
    whole = frame(light, tmp_path, "whole.bin")
    early = frame(light.select(slice(0, 8)), tmp_path, "early.bin")
    late = frame(light.select(slice(4, None)), tmp_path, "late.bin")
    ((product, key),) = whole
    one = build(tmp_path, product, key, whole[product, key])
    two = build(tmp_path, product, key, early[product, key], late[product, key], run_id="two")
    assert two.store.digest == one.store.digest
    assert two.n_home == one.n_home == len(light)
    assert not two.conflicts


def test_a_packet_that_contradicts_the_one_of_another_file_is_quarantined(packets: Packets, tmp_path: Path) -> None:
    light = packets.of_product("sci_spectrogram")
    blob = bytearray(light.to_bytes())
    blob[int(light.length[:3].sum()) - 1] ^= 1
    first = frame(light, tmp_path, "first.bin")
    other = frame(Packets.from_bytes(bytes(blob)), tmp_path, "other.bin")
    ((product, key),) = first
    built = build(tmp_path, product, key, first[product, key], other[product, key])
    assert (built.n_home, built.n_conflicts) == (len(light), 1)
    (conflict,) = built.conflicts
    assert "differs" in conflict.reason
    assert (tmp_path / conflict.path).stat().st_size == light.length[2]


def test_a_request_with_a_missing_packet_is_built_and_says_so(packets: Packets, tmp_path: Path) -> None:
    science = packets.of_product("sci_spectrogram")
    sets = frame(pick(science, [row for row in range(len(science)) if row != 5]), tmp_path)
    ((product, key), inputs) = sets.popitem()
    built = build(tmp_path, product, key, inputs)
    assert not built.complete
    assert built.missing == "1 packet(s) between counts 182 and 184"
    cube = open_store(str(tmp_path / built.path)).load()
    starts = cube["time_start"].values
    assert (np.diff(starts) > np.timedelta64(2, "s")).sum() == 1


def test_two_requests_in_one_set_are_refused(packets: Packets, tmp_path: Path) -> None:
    pixels = packets.of_product("sci_pixels")
    sets = frame(pixels, tmp_path)
    with pytest.raises(BalanceError, match="hold 2 requests"):
        build(tmp_path, "sci_pixels", "2206160001-50152", *sets.values())


@pytest.mark.parametrize("fault", ["flipped", "shorter", "gone"])
def test_a_damaged_packet_set_is_never_built_from(packets: Packets, tmp_path: Path, fault: str) -> None:
    sets = frame(packets.of_product("sci_spectrogram"), tmp_path)
    ((product, key), inputs) = sets.popitem()
    kept = tmp_path / inputs[0]
    blob = bytearray(kept.read_bytes())
    blob[100] ^= 4
    if fault == "gone":
        kept.unlink()
    else:
        kept.write_bytes(blob if fault == "flipped" else blob[:-9])
    with pytest.raises(StoreError, match=r"packets/.*\. Expected: .*\. Do: .*ingest"):
        build(tmp_path, product, key, inputs)


def test_an_ephemeris_knows_its_distance(delivery: Path, tmp_path: Path) -> None:
    source = delivery / "ephemeris" / "solo_L2_stix-aux-ephemeris_20220616_V01.fits"
    kept = jobs.keep_ancillary(jobs.AncillaryJob(str(source), "0" * 64, str(tmp_path)))
    assert kept.key == DAYS[1]
    built = build(tmp_path, "ephemeris", kept.key, (kept.path, "0" * 64))
    assert built.summary["distance_m"] == pytest.approx(0.62 * 149_597_870_700.0, rel=1e-6)
    assert (built.n_home, built.conflicts) == (0, ())


def test_a_new_store_that_does_not_verify_is_an_error(
    packets: Packets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(url: str, datasets: Sequence[xr.Dataset], **more: Any) -> StoreRecord:
        record = write_store(url, datasets, **more)
        next(Path(url).rglob("counts/c.*")).unlink()
        return record

    # The package holds the function under the name of its module.
    monkeypatch.setattr(sys.modules[jobs.build.__module__], "write_store", lose)
    sets = frame(packets.of_product("sci_spectrogram"), tmp_path)
    ((product, key), inputs) = sets.popitem()
    with pytest.raises(StoreError, match="defects"):
        build(tmp_path, product, key, inputs)


def test_a_request_of_several_boxes_is_one_partition(tmp_path: Path) -> None:
    boxes = spectrogram([[((1, 8, 1), [0, 10], 20), ((9, 31, 4), [0, 10, 20], 30)]])
    sets = frame(Packets.from_bytes(encode(boxes)), tmp_path)
    ((product, key), inputs) = sets.popitem()
    built = build(tmp_path, product, key, inputs)
    assert built.store.boxes == 2
    assert built.store.counts_sum == boxes.values("counts").sum()
    assert (built.summary["channel_start"], built.summary["channel_stop"]) == (1, 32)


def test_a_request_without_a_bin_is_no_partition(tmp_path: Path) -> None:
    sets = frame(Packets.from_bytes(encode(spectrogram([[((1, 8, 1), [], 0)]]))), tmp_path)
    ((product, key), inputs) = sets.popitem()
    assert jobs.build(jobs.BuildJob(product, key, (inputs,), str(tmp_path), "one")) is None
