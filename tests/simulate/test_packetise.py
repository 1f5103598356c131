"""Datasets to packets and back: nothing may change on the way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stixflow.cubes.build import build_day, build_requests
from stixflow.cubes.model import DATA_MODEL_VERSION, PRODUCTS
from stixflow.errors import UsageError
from stixflow.instrument import energy_edges
from stixflow.simulate.packetise import MAX_PACKET_BYTES, SequenceCounter, packetise
from stixflow.telemetry import Packets, decode, encode
from stixflow.telemetry.compression import Scheme, decompress, pack_skm
from stixflow.time import scet_to_utc

IDENTITY = ("request_id", "seq_control", "ssid", "product")
NEW_TIME_FIELD = 677774249
"""Onboard second since which requests carry `start_time`."""
SCHEMES: tuple[Scheme, ...] = ((0, 5, 3), (0, 4, 4), (0, 3, 5))


def there_and_back(dataset: xr.Dataset, **options: Any) -> xr.Dataset:
    records, _ = packetise(dataset, **options)
    packets = Packets.from_bytes(encode(records))
    assert packets.length.max() <= MAX_PACKET_BYTES
    assert len(packets) == packets.accounting.packets_in == len(records)
    product = dataset.attrs["product"]
    decoded = decode(packets)[product]
    if product == "ql_lightcurve":
        return build_day("ql_lightcurve", decoded)
    (request,) = build_requests(decoded, corrections=())
    assert request.complete
    (built,) = request.datasets
    return built


def assert_equal(built: xr.Dataset, dataset: xr.Dataset) -> None:
    assert set(built.variables) == set(dataset.variables)
    for name in dataset.variables:
        assert built[name].dims == dataset[name].dims, name
        np.testing.assert_array_equal(built[name].values, dataset[name].values, err_msg=str(name))
    for name in IDENTITY if "request_id" in dataset.attrs else ("product",):
        assert built.attrs[name] == dataset.attrs[name], name


def as_dataset(product: str, values: dict[str, Any], attrs: dict[str, Any]) -> xr.Dataset:
    low, high = (
        energy_edges(values["time"][0])[values["channel_start"]],
        energy_edges(values["time"][0])[values["channel_stop"]],
    )
    values = {
        "energy_low": low,
        "energy_high": high,
        "energy": np.where(np.isinf(high), low, (low + high) / 2),
        "detector": np.arange(32),
        "pixel": np.arange(12),
        **values,
    }
    variables = {}
    for name, spec in PRODUCTS[product].variables.items():
        array = np.asarray(values[name])
        variables[name] = (spec.dims, array if array.dtype.name in spec.dtypes else array.astype(spec.dtypes[0]))
    return xr.Dataset(variables, attrs={**attrs, "product": product, "data_model_version": DATA_MODEL_VERSION})


def times(start: int, steps: np.ndarray, durations: np.ndarray) -> dict[str, np.ndarray]:
    """Bins that begin `steps` tenths of a second after the onboard time `start`."""
    scet = start + np.rint(steps * 6553.6).astype(np.int64)
    centre = scet + np.rint(durations * 3276.8).astype(np.int64)
    return {"scet": scet, "time_start": scet_to_utc(scet), "time": scet_to_utc(centre), "timedel": durations / 10}


def numbers(rng: np.random.Generator, shape: tuple[int, ...], scheme: Scheme) -> np.ndarray:
    """Random numbers that the scheme can carry, small ones more often."""
    codes = np.minimum(rng.integers(0, 256, shape), rng.integers(0, 256, shape)).astype(np.uint8)
    return decompress(codes, scheme)


@st.composite
def request_parts(draw: st.DrawFn) -> tuple[np.random.Generator, int, dict[str, Any], Scheme, Scheme]:
    """Times, state and schemes of a request."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n_times = draw(st.integers(1, 12))
    durations = rng.integers(1, draw(st.sampled_from([20, 3000])), n_times)
    gaps = rng.integers(0, 50, n_times) * (rng.random(n_times) < 0.3)
    steps = np.concatenate([[0], np.cumsum(durations + gaps)[:-1]])
    coarse = draw(
        st.one_of(st.integers(660_000_000, NEW_TIME_FIELD - 10_000), st.integers(NEW_TIME_FIELD, 800_000_000))
    )
    start = (coarse << 16) + draw(st.integers(0, 65535))
    counts, triggers = draw(st.sampled_from(SCHEMES)), draw(st.sampled_from(SCHEMES))
    state = {
        **times(start, steps, durations),
        "rcr": np.sort(rng.integers(0, 8, n_times)),
        "counts_skm": np.full(n_times, pack_skm(*counts)),
        "triggers_skm": np.full(n_times, pack_skm(*triggers)),
    }
    return rng, n_times, state, counts, triggers


def identity(rng: np.random.Generator, ssid: int) -> dict[str, Any]:
    return {
        "request_id": int(rng.integers(0, 2**32)),
        "seq_control": int(rng.integers(0, 2**16)),
        "ssid": ssid,
        "box": 0,
        "boxes": 1,
    }


@st.composite
def pixel_datasets(draw: st.DrawFn) -> xr.Dataset:
    rng, n_times, state, counts_scheme, triggers_scheme = draw(request_parts())
    if state["scet"][0] >> 16 < NEW_TIME_FIELD:
        # Triggers went by the scheme of the counts then.
        triggers_scheme, state["triggers_skm"] = counts_scheme, state["counts_skm"]
    edges = np.sort(rng.choice(33, draw(st.integers(2, 20)), replace=False))
    if draw(st.booleans()):
        detectors, pixels = rng.integers(1, 2**32, n_times), rng.integers(1, 2**12, n_times)
    else:
        detectors, pixels = np.full(n_times, 0xFFFFFFFF), np.full(n_times, draw(st.sampled_from([0xFFF, 0x0FF])))
    inside = ((detectors[:, None] >> np.arange(32)) & 1)[:, None, :, None] * ((pixels[:, None] >> np.arange(12)) & 1)[
        :, None, None, :
    ]
    counts = numbers(rng, (n_times, len(edges) - 1, 32, 12), counts_scheme)
    values = {
        **state,
        "channel_start": edges[:-1],
        "channel_stop": edges[1:],
        "counts": counts * inside.astype(counts.dtype),
        "observed": np.ones((n_times, len(edges) - 1), dtype=bool),
        "triggers": numbers(rng, (n_times, 16), triggers_scheme),
        "detector_mask": detectors,
        "pixel_mask": pixels,
    }
    return as_dataset("sci_pixels", values, identity(rng, 21))


@st.composite
def spectrogram_datasets(draw: st.DrawFn) -> xr.Dataset:
    rng, n_times, state, counts_scheme, triggers_scheme = draw(request_parts())
    unit = draw(st.integers(1, 4))
    n_energies = draw(st.integers(1, 32 // unit))
    first = draw(st.integers(0, 32 - unit * n_energies))
    start = first + unit * np.arange(n_energies)
    values = {
        **state,
        "channel_start": start,
        "channel_stop": start + unit,
        "counts": numbers(rng, (n_times, n_energies), counts_scheme),
        "triggers": numbers(rng, (n_times,), triggers_scheme),
        "detector_mask": np.full(n_times, rng.integers(1, 2**32)),
        "pixel_mask": np.full(n_times, rng.integers(1, 2**12)),
    }
    return as_dataset("sci_spectrogram", values, identity(rng, 24))


@st.composite
def light_curve_datasets(draw: st.DrawFn) -> xr.Dataset:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n_times, step = draw(st.integers(1, 1500)), draw(st.sampled_from([40, 20, 5, 80]))
    late = np.zeros(n_times, dtype=np.int64)
    late[rng.integers(0, n_times, 2)] = rng.integers(0, 3000, 2)
    start = (int(rng.integers(640_400_000, 800_000_000)) << 16) + int(rng.integers(0, 65536))
    scheme = draw(st.sampled_from(SCHEMES))
    edges = np.sort(rng.choice(33, draw(st.integers(2, 8)), replace=False))
    when = step * np.arange(n_times) + np.cumsum(late) * 10
    values = {
        **times(start, when, np.full(n_times, step)),
        "channel_start": edges[:-1],
        "channel_stop": edges[1:],
        "counts": numbers(rng, (n_times, len(edges) - 1), scheme),
        "triggers": numbers(rng, (n_times,), (0, 5, 3)),
        "rcr": np.sort(rng.integers(0, 8, n_times)),
        "detector_mask": np.full(n_times, 0xFFFFFCFF),
        "pixel_mask": np.full(n_times, 0xFFF),
        "counts_skm": np.full(n_times, pack_skm(*scheme)),
        "triggers_skm": np.full(n_times, 0x053),
    }
    return as_dataset("ql_lightcurve", values, {"ssid": 30})


EASY = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@EASY
@given(pixel_datasets())
def test_pixel_data_come_back_unchanged(dataset: xr.Dataset) -> None:
    assert_equal(there_and_back(dataset), dataset)


@EASY
@given(spectrogram_datasets())
def test_spectrograms_come_back_unchanged(dataset: xr.Dataset) -> None:
    assert_equal(there_and_back(dataset), dataset)


@EASY
@given(light_curve_datasets())
def test_light_curves_come_back_unchanged(dataset: xr.Dataset) -> None:
    assert_equal(there_and_back(dataset), dataset)


def simple_pixels(n_times: int = 3, energies: int = 12, coarse: int = 721_000_000) -> xr.Dataset:
    state = times(coarse << 16, 40 * np.arange(n_times), np.full(n_times, 40))
    values = {
        **state,
        "rcr": np.zeros(n_times),
        "channel_start": 1 + np.arange(energies),
        "channel_stop": 2 + np.arange(energies),
        "counts": np.full((n_times, energies, 32, 12), 3, dtype=np.uint32),
        "observed": np.ones((n_times, energies), dtype=bool),
        "triggers": np.full((n_times, 16), 7, dtype=np.uint32),
        "detector_mask": np.full(n_times, 0xFFFFFFFF),
        "pixel_mask": np.full(n_times, 0xFFF),
        "counts_skm": np.full(n_times, 0x044),
        "triggers_skm": np.full(n_times, 0x053),
    }
    attrs = {"request_id": 2211090001, "seq_control": 50000, "ssid": 21, "box": 0, "boxes": 1}
    return as_dataset("sci_pixels", values, attrs)


def simple_spectrogram() -> xr.Dataset:
    pixels = simple_pixels()
    values = {str(name): pixels[name].values for name in pixels.variables}
    values["counts"], values["triggers"] = values["counts"][:, :, 0, 0], values["triggers"][:, 0]
    return as_dataset("sci_spectrogram", values, {**pixels.attrs, "ssid": 24})


def simple_light_curve(n_times: int = 1000) -> xr.Dataset:
    values = {
        **times(721_000_000 << 16, 40 * np.arange(n_times), np.full(n_times, 40)),
        "rcr": np.zeros(n_times),
        "channel_start": [1, 7, 12, 17, 23],
        "channel_stop": [7, 12, 17, 23, 28],
        "counts": np.full((n_times, 5), 231, dtype=np.uint32),
        "triggers": np.full(n_times, 3455, dtype=np.uint32),
        "detector_mask": np.full(n_times, 0xFFFFFCFF),
        "pixel_mask": np.full(n_times, 0xFFF),
        "counts_skm": np.full(n_times, 0x053),
        "triggers_skm": np.full(n_times, 0x053),
    }
    return as_dataset("ql_lightcurve", values, {"ssid": 30})


def changed(dataset: xr.Dataset, name: str, where: tuple[Any, ...], value: Any) -> xr.Dataset:
    copy = dataset.copy(deep=True)
    copy[name].values[where] = value
    return copy


REFUSED = [
    (simple_pixels, "counts", (0, 0, 0, 0), 33, "have no code in scheme"),
    (simple_pixels, "counts", (0, 0, 0, 0), 600_000, "values from 0 to 600000"),
    (simple_pixels, "triggers", (1, 3), 17, "1 of 48 triggers have no code"),
    (simple_pixels, "scet", (1,), (721_000_004 << 16) + 3000, r"off the 0.1 s raster"),
    (simple_pixels, "timedel", (1,), 3.97, "timedel of 3.97 s"),
    (simple_pixels, "timedel", (1,), 7000.0, "timedel from 4.0 to 7000.0"),
    (simple_pixels, "pixel_mask", (1,), 0x0FF, "counts in pixels, detectors or energies that were not sent"),
    (simple_pixels, "observed", (1, 2), False, "1152 counts"),
    (simple_pixels, "counts_skm", (1,), 0x053, "2 values of counts_skm"),
    (simple_pixels, "triggers_skm", (slice(None),), 0x007, "scaled on board"),
    (simple_spectrogram, "channel_stop", (11,), 14, r"energy bins of \[1, 2\] channels"),
    (simple_light_curve, "channel_start", (2,), 13, "gap between energy bins"),
    (simple_light_curve, "timedel", (slice(None),), 7000.0, "timedel from 7000.0"),
]


@pytest.mark.parametrize(("make", "name", "where", "value", "found"), REFUSED)
def test_what_telemetry_cannot_carry_is_refused(make: Any, name: str, where: Any, value: Any, found: str) -> None:
    with pytest.raises(UsageError, match=found):
        packetise(changed(make(), name, where, value))


def test_other_products_are_refused() -> None:
    with pytest.raises(UsageError, match="'ephemeris'"):
        packetise(xr.Dataset(attrs={"product": "ephemeris"}))


def test_a_request_longer_than_its_time_field_is_refused() -> None:
    late = changed(simple_pixels(coarse=670_000_000), "scet", (2,), (670_006_600 << 16))
    with pytest.raises(UsageError, match=r"a request of 6600.0 s"):
        packetise(late)


def test_quantising_is_what_the_instrument_does() -> None:
    rough = changed(simple_pixels(), "counts", (0, 0, 0, 0), 33)
    rough = changed(rough, "scet", (1,), (721_000_004 << 16) + 3000)
    records, _ = packetise(rough, quantise=True)
    assert records.values("counts")[0] == 32
    # 3000 ticks are nearer to 0 than to 0.1 s.
    assert records["start_time"].tolist()[-1] - records["start_time"].tolist()[0] == 80
    assert 40 in records["start_time"] - records["start_time"][0]


def test_times_may_be_off_by_a_tolerance() -> None:
    jitter = changed(simple_pixels(), "scet", (1,), (721_000_004 << 16) + 2)
    with pytest.raises(UsageError, match="ticks"):
        packetise(jitter)
    records, _ = packetise(jitter, tolerance_ticks=1)
    assert np.ptp(records["start_time"]) == 80


def test_packets_are_full_and_cut_between_energies() -> None:
    records, _ = packetise(simple_pixels(energies=12))
    # 10 energies of 388 bytes fill a packet: the other two of a bin go with the next bin.
    assert records["num_energy_groups"].tolist() == [10, 2, 8, 4, 6, 6]
    assert records["num_substructures"].tolist() == [1, 2, 2, 1]
    assert records.sequence_flag.tolist() == [1, 0, 0, 2]
    assert (np.diff(records.scet) > 0).all()
    assert records.scet[0] >= (721_000_012 << 16)


def test_a_short_request_stands_alone() -> None:
    records, counter = packetise(simple_spectrogram())
    assert records.sequence_flag.tolist() == [3]
    assert counter.next == {1468: 1}


def test_light_curve_packets_are_as_full_as_the_real_ones() -> None:
    records, _ = packetise(simple_light_curve())
    assert records["num_rcr"].tolist() == [580, 420]
    assert Packets.from_bytes(encode(records)).length[0] == MAX_PACKET_BYTES
    assert records.sequence_flag.tolist() == [3, 3]
    # The header is written when the data are complete.
    assert (records.scet - (records["scet_coarse"].astype(np.int64) << 16) == np.array([2320, 1680]) << 16).all()


@pytest.mark.parametrize("name", ["detector_mask", "counts_skm", "pixel_mask"])
def test_a_change_of_state_begins_a_new_light_curve_packet(name: str) -> None:
    dataset = changed(simple_light_curve(), name, (slice(100, None),), 0x044 if name == "counts_skm" else 0x0FF)
    dataset = changed(dataset, "counts", (slice(None),), 5)
    records, _ = packetise(dataset)
    assert records["num_rcr"].tolist() == [100, 580, 320]


def test_the_time_field_follows_the_database_of_the_packet() -> None:
    old, _ = packetise(simple_pixels(coarse=NEW_TIME_FIELD - 1000))
    new, _ = packetise(simple_pixels(coarse=NEW_TIME_FIELD))
    assert old["delta_time"].dtype == np.uint16
    assert old["delta_time"][0] == 0
    # The new field is one step less than the time after T0.
    assert new["start_time"][0] == 0
    assert int(new["time_stamp"][0]) < NEW_TIME_FIELD << 16


def test_counts_of_an_apid_go_on_and_wrap() -> None:
    counter = SequenceCounter({1468: 16382, 1500: 7})
    records, after = packetise(simple_pixels(), counter=counter)
    assert records.sequence_count.tolist() == [16382, 16383, 0, 1]
    assert after.next == {1468: 2, 1500: 7}
    assert counter.next[1468] == 16382


def test_a_bin_without_energies_keeps_its_triggers() -> None:
    dataset = changed(changed(simple_pixels(), "counts", (1,), 0), "observed", (1,), False)
    records, _ = packetise(dataset)
    assert 0 in records["num_energy_groups"]
    assert (records.values("trigger") == 7).all()
    assert len(np.unique(records["start_time"])) == 3
