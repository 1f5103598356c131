"""Counts, noise and dead time: what one product says agrees with what the others say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from stixflow.cubes.check import check_dataset
from stixflow.imaging import visibilities
from stixflow.imaging.forward import Gaussian, source_visibilities
from stixflow.instrument import detectors, live_fraction, subcollimators
from stixflow.simulate.observe import (
    Request,
    Sky,
    build_sky,
    expected_light_curve,
    expected_pixels,
    expected_spectrogram,
    generator,
    light_curve,
    science,
)
from stixflow.simulate.plan import plan_requests, quiet_span
from stixflow.simulate.response import QL_DETECTORS
from stixflow.simulate.sun import demo_scenario
from stixflow.time import TICKS_PER_SECOND, Scet, TimeRange, scet_to_utc, utc_to_scet


@pytest.fixture(scope="module")
def sky() -> Sky:
    scenario = demo_scenario(seed=11)
    strong = scenario.flares[3]
    span = TimeRange(strong.extent.start - np.timedelta64(4000, "s"), strong.extent.stop)
    return build_sky(replace(scenario, span=span, flares=(strong,)))


def edges_around(sky: Sky, seconds: int, bins: int) -> Scet:
    start = int(utc_to_scet(sky.scenario.flares[0].peak)) >> 16 << 16
    return start + seconds * TICKS_PER_SECOND * np.arange(-(bins // 2), bins - bins // 2 + 1, dtype=np.int64)


def test_light_curve_spectrogram_and_pixels_count_the_same_photons(sky: Sky) -> None:
    edges = edges_around(sky, 4, 20)
    bands, ql_triggers = expected_light_curve(sky, edges)
    cube, triggers = expected_pixels(sky, edges, (0, 32))
    spectrum, sum_of_triggers = expected_spectrogram(sky, edges, (0, 32), QL_DETECTORS, 0xFFF)
    used = np.delete(np.arange(32), [8, 9])
    summed = cube[:, :, used].sum(axis=(2, 3))
    assert np.allclose(spectrum, summed)
    assert np.allclose(bands[:, 0], summed[:, 1:7].sum(axis=1))
    assert np.allclose(bands[:, 4], summed[:, 23:28].sum(axis=1))
    assert np.allclose(ql_triggers, triggers.sum(axis=1))
    assert np.allclose(sum_of_triggers, ql_triggers)


def test_triggers_tell_the_dead_time_that_took_the_counts(sky: Sky) -> None:
    edges = edges_around(sky, 4, 4)
    cube, triggers = expected_pixels(sky, edges, (0, 32))
    live = live_fraction(triggers, 4.0)[:, detectors().accumulator]
    alive = cube.sum(axis=(1, 3)) / live
    faint = Sky(sky.scenario, sky.background * 1e-6, sky.flares)
    fainter, _ = expected_pixels(faint, edges, (0, 32))
    assert live.min() < 0.98
    assert (alive > cube.sum(axis=(1, 3))).all()
    # Counts over live fraction are additive: flare and background together, less the flare alone, is the background.
    other = (
        fainter.sum(axis=(1, 3))
        / live_fraction(expected_pixels(faint, edges, (0, 32))[1], 4.0)[:, detectors().accumulator]
    )
    quiet = sky.background.sum(axis=(0, 2)) * 4.0
    assert np.allclose(alive - other, quiet * (1 - 1e-6), rtol=1e-6)


def test_the_noise_free_peak_gives_the_asked_goes_flux(sky: Sky) -> None:
    edges = edges_around(sky, 4, 40)
    quiet = Sky(sky.scenario, sky.background, ())
    net = expected_light_curve(sky, edges)[0][:, 0] - expected_light_curve(quiet, edges)[0][:, 0]
    assert net.max() == pytest.approx(sky.flares[0].ql_peak_counts, rel=1e-3)
    peak = scet_to_utc(edges[:-1])[net.argmax()]
    assert abs(peak - sky.scenario.flares[0].peak) < np.timedelta64(8, "s")


@pytest.mark.parametrize(("energies", "tolerance"), [((4.0, 10.0), 5e-4), ((6.0, 10.0), 0.02)])
def test_visibilities_of_noise_free_counts_are_the_true_ones(
    sky: Sky, energies: tuple[float, float], tolerance: float
) -> None:
    scenario, (flare,), (response,) = sky.scenario, sky.scenario.flares, sky.flares
    edges = edges_around(sky, 4, 10)
    request = Request("sci_pixels", "flare", 1, 1, edges, (1, 21))
    quiet = Request("sci_pixels", "background", 2, 2, edges_at(scenario.span, 3200), (1, 21))
    pixels, background = (noise_free(sky, one) for one in (request, quiet))
    found = visibilities(
        pixels,
        TimeRange(*scet_to_utc(edges[[0, -1]])),
        energies,
        background,
        location=scenario.stix_position(flare.thermal_sources[0]),
        center=(0.0, 0.0),
        systematic=0.0,
    )["visibility"].values[0]
    grids, used = detectors(), subcollimators()
    band = f"{energies[0]:g}-{energies[1]:g}"
    middle = scet_to_utc((edges[:-1] + edges[1:]) // 2)
    true = np.zeros(len(used), dtype=complex)
    for part, sources in zip(response.components, (flare.thermal_sources, flare.non_thermal_sources), strict=True):
        total = sum(source.share for source in sources)
        flux = response.flux[part.kind][band] * part.profile(middle).mean()
        shapes = [
            Gaussian(
                flux * source.share / total,
                *scenario.stix_position(source),
                *source.widths,
                scenario.stix_angle(source),
            )
            for source in sources
        ]
        true += source_visibilities(shapes, grids.u[used], grids.v[used])
    assert np.abs(found - true).max() < tolerance * np.abs(true).max()


def edges_at(span: TimeRange, seconds: int) -> Scet:
    start = (int(utc_to_scet(span.start)) >> 16 << 16) + TICKS_PER_SECOND
    return np.array([start, start + seconds * TICKS_PER_SECOND], dtype=np.int64)


def noise_free(sky: Sky, request: Request) -> xr.Dataset:
    noisy = science(sky, request)
    counts, triggers = expected_pixels(sky, request.edges, request.channels)
    return noisy.assign(counts=(noisy["counts"].dims, counts), triggers=(noisy["triggers"].dims, triggers))


def test_datasets_follow_the_model_and_scatter_as_counts_do(sky: Sky) -> None:
    dataset = light_curve(sky)
    check_dataset(dataset)
    expected, triggers = expected_light_curve(
        sky, np.append(dataset["scet"].values, dataset["scet"].values[-1] + 262144)
    )
    quiet = slice(0, 800)
    deviation = (dataset["counts"].values[quiet] - expected[quiet]) / np.sqrt(expected[quiet])
    assert abs(deviation.mean()) < 0.1
    # Noise of compression adds to that of counting: a step of 16 to 32 at 250 counts, of 64 at 750.
    assert 0.9 < deviation.std() < 1.6
    assert dataset["triggers"].values[quiet].mean() == pytest.approx(triggers[quiet].mean(), rel=0.03)


def test_a_product_does_not_depend_on_what_else_is_made(sky: Sky) -> None:
    requests = plan_requests(sky.scenario, sky.flares)
    alone = science(sky, requests[-1])
    light_curve(sky)
    science(sky, requests[0])
    assert science(sky, requests[-1]).identical(alone)
    other = science(replace(sky, scenario=replace(sky.scenario, seed=12)), requests[-1])
    assert not np.array_equal(other["counts"], alone["counts"])
    check_dataset(alone)


def test_generators_are_independent_by_key() -> None:
    draws = [generator(3, *key).integers(2**62) for key in ((), (1,), (2,), (1, 2), (2, 1))]
    assert len(set(draws)) == len(draws)
    assert generator(3, 1).integers(2**62) == draws[1]


def test_masks_leave_nothing_outside(sky: Sky) -> None:
    request = Request("sci_pixels", "flare", 1, 1, edges_around(sky, 4, 3), (1, 5), 0x0000F00F, 0x0FF)
    dataset = science(sky, request)
    check_dataset(dataset)
    counts = dataset["counts"].values
    assert counts[:, :, 4:12].sum() == counts[..., 8:].sum() == 0
    assert counts[:, :, :4, :8].sum() > 0


def test_the_plan_asks_for_every_flare_and_a_quiet_hour() -> None:
    scenario = demo_scenario()
    sky = build_sky(scenario)
    requests = plan_requests(scenario, sky.flares)
    background = requests[0]
    assert background.purpose == "background"
    assert background.span.seconds == pytest.approx(3200, abs=1)
    for flare in scenario.flares:
        assert background.span.stop <= flare.extent.start or flare.extent.stop <= background.span.start
        kinds = {one.kind for one in requests if one.span.covers(np.array([flare.peak]))[0]}
        assert kinds == {"sci_pixels", "sci_spectrogram"}
    assert len({one.request_id for one in requests}) == len({one.seq_control for one in requests}) == len(requests)
    for one in requests[1:]:
        widths = np.unique(np.diff(one.edges)) / TICKS_PER_SECOND
        assert set(widths) <= ({1.0} if one.kind == "sci_spectrogram" else {4.0, 10.0})


def test_without_a_quiet_stretch_there_is_no_background() -> None:
    scenario = demo_scenario()
    flare = scenario.flares[0]
    assert quiet_span(replace(scenario, span=flare.span, flares=(flare,))) is None
