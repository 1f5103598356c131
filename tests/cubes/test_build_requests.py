from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from stixflow.cubes.build import RequestCubes, build_requests
from stixflow.cubes.check import check_dataset
from stixflow.cubes.sources import record_names
from stixflow.fits import read_level1
from stixflow.simulate import packetise
from stixflow.telemetry import Packets, Records, concat, decode, encode, read_packets
from stixflow.telemetry.compression import pack_skm

L1 = "data/l1/solo_L1_stix-sci-xray-{}.fits"
RAW = "rpd_20200505T235959-20200506T000019_V01_0087031808-50882"
SUMS = "scpd_20200505T235959-20200506T000019_V01_0087031810-50884"


def records_of(path: Path, product: str) -> Records:
    (records,) = decode(read_packets(path), products=record_names(product)).values()
    return records


def through_packets(records: Records, product: str) -> RequestCubes:
    decoded = decode(Packets.from_bytes(encode(records)), products=record_names(product))
    assert not decoded.rejected
    (found,) = decoded.values()
    (request,) = build_requests(found, corrections=())
    return request


@pytest.mark.parametrize("idb", ["22634", "22635"])
@pytest.mark.parametrize(("level", "product"), [("l0", "sci_pixels"), ("l2", "sci_pixel_sums")])
def test_synthetic_requests_equal_the_truth(shared: Path, level: str, product: str, idb: str) -> None:
    path = shared / f"oracle/telemetry/requests/{level}_{idb}.bin"
    (request,) = build_requests(records_of(path, product))
    assert request.complete
    (cube,) = request.datasets
    check_dataset(cube)
    with np.load(path.with_name(f"{level}_{idb}_truth.npz")) as truth:
        counts = truth["counts"].transpose(0, 3, 1, 2)
        detectors = truth["detectors"] if level == "l2" else np.arange(32)
        assert np.array_equal(cube["counts"].values[:, :, detectors], counts)
        assert int(cube["counts"].sum()) == int(counts.sum()) == request.books.counts == request.books.counts_in
        assert np.array_equal(cube["triggers"], truth["triggers"])
        assert np.array_equal(np.rint(cube["timedel"] * 10), truth["duration_raw"])
        if level == "l2":
            assert np.array_equal(cube["pixel_set"], np.broadcast_to(truth["pixel_sets"], (3, 4)))


@pytest.mark.parametrize(("name", "product"), [(RAW, "sci_pixels"), (SUMS, "sci_pixel_sums")])
def test_official_files_come_back(shared: Path, name: str, product: str) -> None:
    """Level 1 to packets to cubes, in the number of packets that the official file says it came in."""
    official = read_level1(shared / L1.format(name))
    records, _ = packetise(official, tolerance_ticks=2)
    request = through_packets(records, product)
    assert request.complete
    assert len(records) == 6
    (cube,) = request.datasets
    check_dataset(cube)
    for variable in official.variables:
        if official[variable].dtype.kind != "M":
            assert np.array_equal(cube[variable], official[variable]), variable
    assert (np.abs(cube["time"].values - official["time"].values) < np.timedelta64(20, "ms")).all()


def test_real_sums_equal_the_official_file(shared: Path) -> None:
    """The one packet of a real request that is at hand, against the file that the team made of all six."""
    official = read_level1(shared / L1.format(SUMS))
    packets = [
        read_packets(shared / f"data/telemetry/{name}") for name in ("67e297_PktTmRaw.xml", "20aaf3_PktTmRaw.xml")
    ]
    packets.append(read_packets(shared / "data/telemetry/packets/cb9ab8_21_6_22.hex"))
    (records,) = decode(concat(packets), products=record_names("sci_pixel_sums")).values()
    (request,) = [one for one in build_requests(records) if one.request_id == 87031810]
    assert not request.complete
    compared = 0
    for cube in request.datasets:
        check_dataset(cube)
        rows = np.searchsorted(official["scet"].values + 65536, cube["scet"].values)
        for index, row in enumerate(rows.tolist()):
            energies = np.searchsorted(official["channel_start"].values, cube["channel_start"].values)
            seen = cube["observed"].values[index]
            here = cube["counts"].values[index, seen]
            assert np.array_equal(here, official["counts"].values[row, energies[seen]])
            assert np.array_equal(cube["triggers"].values[index], official["triggers"].values[row])
            compared += int(here.sum())
    assert compared == request.books.counts > 3000


def test_real_visibilities_equal_the_pixel_data_of_the_same_time(shared: Path) -> None:
    """Flux and both parts are sums of pixel sets; equal where no number was too large to be sent exactly."""
    records = records_of(shared / "data/telemetry/packets/d8b0ed_21_6_23_nstr_2.hex", "sci_visibilities")
    (request,) = build_requests(records)
    (cube,) = request.datasets
    check_dataset(cube)
    pixels = read_level1(shared / L1.format(RAW))["counts"].values[:1].astype(np.int64)
    sums = [
        pixels[..., np.flatnonzero(mask >> np.arange(12) & 1)].sum(axis=-1)
        for mask in cube["pixel_set"].values[0].tolist()
    ]
    flux, visibility = cube["flux"].values[:1], cube["visibility"].values[:1]
    exact = flux < 60
    assert cube["observed"].values[0].all()
    assert np.array_equal(flux[exact], sums[0].sum(axis=2)[exact])
    real, imaginary = sums[1] - sums[2], sums[3] - sums[4]
    received = ~np.isnan(visibility)
    small = received & (np.abs(real) < 60) & (np.abs(imaginary) < 60)
    assert small.sum() > 500
    assert np.array_equal(visibility.real[small], real[small])
    assert np.array_equal(visibility.imag[small], imaginary[small])


def _raw(counts: np.ndarray, *, observed: np.ndarray | None = None) -> xr.Dataset:
    """A cube of raw pixel data with the given counts (time, energy, detector, pixel)."""
    from example_cubes import make_dataset

    made = make_dataset("sci_pixels", n_time=counts.shape[0], n_energy=counts.shape[1], ssid=20, step_s=4.0)
    start = (650_000_000 << 16) + np.rint(np.arange(counts.shape[0]) * 4 * 65536).astype(np.int64)
    full = {name: np.full_like(made[name].values, value) for name, value in {"detector_mask": 0xFFFFFFFF}.items()}
    full |= {"pixel_mask": np.full_like(made["pixel_mask"].values, 0xFFF), "scet": start, "counts": counts}
    full |= {"counts_skm": np.zeros_like(made["counts_skm"].values), "triggers_skm": np.zeros(len(start), np.uint16)}
    full["observed"] = np.ones(counts.shape[:2], bool) if observed is None else observed
    return made.assign({name: made[name].copy(data=values) for name, values in full.items()})


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), mean=st.sampled_from([0.02, 0.5, 300.0]), order=st.randoms(use_true_random=False))
def test_raw_pixel_data_come_back_whatever_the_order(seed: int, mean: float, order: random.Random) -> None:
    counts = np.random.default_rng(seed).poisson(mean, (3, 4, 32, 12)).astype(np.uint32)
    counts[:, [0, -1], 0, 0] = 1
    made = _raw(counts)
    records, _ = packetise(made)
    rows = list(range(len(records)))
    order.shuffle(rows)
    request = through_packets(records.select(np.array(rows + rows[:1])), "sci_pixels")
    assert request.complete
    (cube,) = request.datasets
    assert np.array_equal(cube["counts"], counts)
    assert np.array_equal(cube["triggers"], made["triggers"])
    assert cube["observed"].values.all()


def test_what_a_missing_packet_of_raw_data_held_is_not_zero() -> None:
    """Without the last packet the high energies of its time bin are not known; nor are the bins after."""
    counts = np.full((1, 6, 32, 12), 300, dtype=np.uint32)
    records, _ = packetise(_raw(counts))
    request = through_packets(records.select(np.arange(len(records) - 1)), "sci_pixels")
    assert not request.complete
    (cube,) = request.datasets
    seen = cube["observed"].values[0]
    assert seen.any()
    assert cube["counts"].values[0][seen].any(axis=(1, 2)).all()
    assert cube.sizes["energy"] <= 6
    whole = records.select(np.array([0, *range(2, len(records))]))
    cut = through_packets(whole, "sci_pixels")
    assert cut.books.counts == cut.books.counts_in < int(counts.sum())


def test_repeated_raw_numbers_count_once_and_contradictions_are_counted() -> None:
    counts = np.full((1, 2, 32, 12), 7, dtype=np.uint32)
    records, _ = packetise(_raw(counts))
    again = records.select(np.arange(len(records)))
    again["count_byte"][:5] += 1
    (decoded,) = decode(
        Packets.from_bytes(encode([records, _later(again)])), products=record_names("sci_pixels")
    ).values()
    (request,) = build_requests(decoded)
    assert request.books.repeated_bins == counts.size
    assert request.books.conflicting_bins == 5
    assert np.array_equal(request.datasets[0]["counts"], counts)


def _later(records: Records) -> Records:
    """The same packets under later sequence counts, as if they were sent again."""
    records.header[:, 3] += 100
    return records


def test_sums_are_of_the_sets_that_were_sent(shared: Path) -> None:
    """Another order of the sets is another axis, not other numbers."""
    official = read_level1(shared / L1.format(SUMS))
    turned = official.isel(pixel=[3, 2, 1, 0]).assign_coords(pixel=official["pixel"])
    records, _ = packetise(turned, tolerance_ticks=2)
    (cube,) = through_packets(records, "sci_pixel_sums").datasets
    assert cube["pixel_set"].values[0].tolist() == [0x111, 0x222, 0x444, 0x888]
    assert np.array_equal(cube["counts"].values[..., ::-1], official["counts"])


def test_parts_that_overflowed_are_not_numbers(shared: Path) -> None:
    records = records_of(shared / "data/telemetry/packets/d8b0ed_21_6_23_nstr_2.hex", "sci_visibilities")
    before = build_requests(records)[0].datasets[0]["visibility"].values
    records["vis_real"][0] = 0x80
    after = build_requests(records)[0].datasets[0]["visibility"].values
    assert int(np.isnan(after.real).sum()) == int(np.isnan(before.real).sum()) + 1
    assert np.array_equal(np.isnan(after.imag), np.isnan(before.imag))


def test_visibilities_are_signed_whatever_the_packet_says(shared: Path) -> None:
    records = records_of(shared / "data/telemetry/packets/e5e0a7_21_6_23.hex", "sci_visibilities")
    (cube,) = build_requests(records)[0].datasets
    values = cube["visibility"].values
    assert np.nanmin(values.real) < 0
    assert np.nanmin(values.imag) < 0
    assert set(cube["counts_skm"].values.tolist()) == {int(pack_skm(0, 3, 5))}
