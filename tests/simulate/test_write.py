"""A scenario on disk: deliveries, ancillary files and the truth."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from stixflow.cubes.build import build_day, build_requests
from stixflow.cubes.check import check_dataset
from stixflow.ephemeris import hpc_to_stix, observer, pointing, read_ancillary
from stixflow.errors import UsageError
from stixflow.simulate import Scenario, Truth, demo_scenario, random_scenario, simulate
from stixflow.simulate.observe import build_sky, light_curve, science
from stixflow.simulate.plan import plan_requests
from stixflow.simulate.write import ephemeris_dataset
from stixflow.telemetry import decode, read_packets
from stixflow.time import TimeRange, to_utc


def short_scenario(seed: int = 4) -> Scenario:
    """One flare of the demonstration, with an hour of quiet before it."""
    demo = demo_scenario(date(2022, 11, 9), seed)
    flare = demo.flares[5]
    start = flare.extent.start - np.timedelta64(3700, "s")
    return replace(demo, span=TimeRange(start, flare.extent.stop), flares=(flare,))


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    return simulate(short_scenario(), tmp_path_factory.mktemp("simulated"))


def test_everything_written_can_be_read_and_counted(truth: Truth) -> None:
    packets = read_packets(truth.path.parent / "telemetry")
    decoded = decode(packets)
    assert packets.accounting.rejected == packets.accounting.duplicates == decoded.accounting.rejected == 0
    assert {name: len(records) for name, records in decoded.items()} == {
        name: total["packets"] for name, total in truth.totals.items()
    }
    for name, records in decoded.items():
        assert int(records.values("counts").sum(dtype=np.int64)) == truth.totals[name]["counts"]


def test_the_cubes_are_what_the_instrument_counted(truth: Truth) -> None:
    decoded = decode(read_packets(list(truth.telemetry)))
    sky = build_sky(truth.scenario)
    assert_same(build_day("ql_lightcurve", decoded["ql_lightcurve"]), light_curve(sky))
    planned = {request.request_id: request for request in plan_requests(truth.scenario, sky.flares)}
    built = build_requests(decoded["sci_pixels"]) + build_requests(decoded["sci_spectrogram"])
    assert {one.request_id for one in built} == set(planned)
    for one in built:
        (cube,) = one.datasets
        check_dataset(cube)
        assert_same(cube, science(sky, planned[one.request_id]))


def assert_same(cube: xr.Dataset, counted: xr.Dataset) -> None:
    for name in counted.variables:
        np.testing.assert_array_equal(cube[name].values, counted[name].values, err_msg=str(name))
    assert {name: cube.attrs[name] for name in counted.attrs} == counted.attrs


@pytest.mark.parametrize("day", [date(2021, 5, 7), date(2023, 9, 1), date(2025, 3, 2)])
def test_other_years_have_other_packets_and_tables(day: date, tmp_path: Path) -> None:
    demo = demo_scenario(day)
    flare = demo.flares[0]
    truth = simulate(replace(demo, span=flare.extent, flares=(flare,)), tmp_path)
    records = decode(read_packets(list(truth.telemetry)))["sci_pixels"]
    assert ("start_time" in records) == (day > date(2021, 6, 23))
    (request,) = build_requests(records)
    check_dataset(request.datasets[0])
    found = int(request.datasets[0]["counts"].values.sum(dtype=np.int64))
    assert found == truth.totals["sci_pixels"]["counts"] > 0


def test_counters_of_an_apid_run_through_all_files(truth: Truth) -> None:
    packets = read_packets(list(truth.telemetry))
    for apid in np.unique(packets.apid):
        assert (np.diff(packets.sequence_count[packets.apid == apid]) == 1).all()


def test_both_containers_hold_the_same_packets(truth: Truth, tmp_path: Path) -> None:
    other = simulate(short_scenario(), tmp_path, container="xml")
    assert all(path.name.endswith("_PktTmRaw.xml") for path in other.telemetry)
    for one, two in zip(truth.telemetry, other.telemetry, strict=True):
        assert read_packets(one).to_bytes() == read_packets(two).to_bytes()


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(truth: Truth, tmp_path: Path) -> None:
    again = simulate(short_scenario(), tmp_path / "again")
    other = simulate(short_scenario(seed=5), tmp_path / "other")
    for one, two, three in zip(truth.telemetry, again.telemetry, other.telemetry, strict=True):
        assert one.read_bytes() == two.read_bytes() != three.read_bytes()
    assert truth.path.read_text() == again.path.read_text() != other.path.read_text()


def test_the_truth_says_what_was_simulated(truth: Truth) -> None:
    told = json.loads(truth.path.read_text())
    scenario = truth.scenario
    (flare,) = told["flares"]
    assert flare["flare_id"] == "2211092033"
    assert flare["goes_class"] == "B9"
    assert told["seed"] == scenario.seed == 4
    assert set(flare["flux"]) == {"thermal", "non_thermal"}
    assert set(flare["flux"]["thermal"]) >= {"4-10", "16-28"}
    assert np.allclose(hpc_to_stix(flare["position_hpc"], scenario.pointing), flare["position_stix"])
    by_id = {request["request_id"]: request for request in told["requests"]}
    assert {by_id[one]["product"] for one in flare["requests"]} == {"sci_pixels", "sci_spectrogram"}
    assert all(
        to_utc(by_id[one]["start"]) < to_utc(flare["peak"]) < to_utc(by_id[one]["stop"]) for one in flare["requests"]
    )
    assert sum(request["purpose"] == "background" for request in told["requests"]) == 1
    for name in ("telemetry", "ephemeris"):
        assert all((truth.path.parent / path).is_file() for path in told[name])


def test_the_ancillary_file_tells_the_pointing_and_the_place(truth: Truth) -> None:
    (path,) = truth.ephemeris
    dataset = read_ancillary(path)
    check_dataset(dataset)
    scenario, peak = truth.scenario, truth.scenario.flares[0].peak
    span = TimeRange(peak - np.timedelta64(20, "s"), peak + np.timedelta64(20, "s"))
    found, place = pointing(dataset, span), observer(dataset, peak)
    assert found.source == "sas"
    assert found.warnings == ()
    assert (found.x, found.y, found.roll) == pytest.approx((*scenario.pointing_arcsec, scenario.roll_deg), abs=1e-4)
    assert place.rsun_arcsec == pytest.approx(scenario.solar_radius_arcsec, rel=1e-6)
    assert (place.hgln_deg, place.hglt_deg) == pytest.approx((scenario.hgln_deg, scenario.hglt_deg), abs=1e-5)


def test_the_attitude_agrees_with_the_aspect_system() -> None:
    scenario = short_scenario()
    dataset = ephemeris_dataset(scenario, TimeRange.of_day(date(2022, 11, 9)))
    without = dataset.assign(sas_ok=("time", np.zeros(dataset.sizes["time"], dtype=bool)))
    peak = scenario.flares[0].peak
    found = pointing(without, TimeRange(peak, peak + np.timedelta64(40, "s")))
    assert found.source == "attitude"
    assert (found.x, found.y) == pytest.approx(scenario.pointing_arcsec, abs=1e-6)


def test_progress_is_told(tmp_path: Path) -> None:
    said: list[str] = []
    simulate(short_scenario(), tmp_path, progress=said.append)
    assert said[0] == "the sky"
    assert any("sci_pixels" in one for one in said)


def test_a_wrong_container_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="container 'fits'"):
        simulate(short_scenario(), tmp_path, container="fits")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_random_day_can_be_written(tmp_path: Path) -> None:
    scenario = random_scenario(date(2023, 6, 1), seed=8, rate=3.0)
    truth = simulate(scenario, tmp_path)
    assert len(truth.flares) == len(scenario.flares)
    assert truth.totals["ql_lightcurve"]["packets"] == 38
