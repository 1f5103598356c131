"""Orbit, attitude and clock from the real kernels of early 2020."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose

from stixflow.ephemeris import Kernels, position
from stixflow.errors import MissingFile, NotFound, UsageError
from stixflow.time import scet_to_utc

pytest.importorskip("spiceypy", reason="needs the extra spice")

_CLOCK_KNOWN_UNTIL = 643_000_000
"""The kernel given is of 2020-06, the expected times are of one of 2020-09."""


@pytest.fixture(scope="module")
def kernels(shared):
    with Kernels(shared / "data/spice") as opened:
        yield opened


def test_table_of_the_orbit_follows_the_kernel(kernels):
    start, stop = np.datetime64("2020-02-11", "ns"), np.datetime64("2022-09-04T01", "ns")
    after = np.arange(np.datetime64("2025-02-20", "ns"), np.datetime64("2030-11-18", "ns"), np.timedelta64(31, "D"))
    times = np.concatenate([np.arange(start, stop, np.timedelta64(163, "h")), after])
    ours, theirs = position(times), position(times, kernels)
    assert theirs.source == "spice"
    assert ours.source == "orbit"
    assert_allclose(ours.distance_au, theirs.distance_au, atol=5e-5)
    assert_allclose((ours.hgln_deg - theirs.hgln_deg + 180) % 360 - 180, 0.0, atol=0.01)
    assert_allclose(ours.hglt_deg, theirs.hglt_deg, atol=0.01)


def test_orbit_near_a_planet_is_continuous(kernels):
    """The kernel changes its centre at 2021-08-08T14:06:59, from the Sun to Venus."""
    times = np.datetime64("2021-08-08T14:06:59", "ns") + np.arange(-2, 3) * np.timedelta64(1, "s")
    steps = np.linalg.norm(np.diff(kernels.orbit(times), axis=0), axis=1) * 1.5e8
    assert_allclose(steps, np.median(steps), atol=6000.0)


def test_attitude(kernels):
    attitude = kernels.attitude(["2020-02-29T06:00", "2020-02-29T18:00", "2020-03-01T02:00"])
    # The spacecraft pointed its shield at the Sun, solar north up to a degree.
    assert attitude.shape == (3, 3)
    assert np.abs(attitude[:, 0]).max() < 1.0
    assert np.abs(attitude[:, 1:]).max() < 0.01
    with pytest.raises(NotFound):
        kernels.attitude("2022-01-01")


def test_clock(kernels, shared):
    pairs = json.loads((shared / "oracle/telemetry/scet_utc_spice.json").read_text())["pairs"]
    known = [(scet, utc) for scet, utc in pairs if int(scet.split(":")[0]) < _CLOCK_KNOWN_UNTIL]
    ticks = np.array([int(coarse) << 16 | int(fine) for coarse, fine in (scet.split(":") for scet, _ in known)])
    expected = np.array([utc for _, utc in known], dtype="datetime64[ns]")
    result = kernels.scet_to_utc(ticks)
    assert len(known) > 20
    assert np.abs(result - expected).max() <= np.timedelta64(1, "us")
    assert np.array_equal(kernels.utc_to_scet(result), ticks)
    # The table without kernels keeps to what it promises.
    flown = ticks >= 634_694_400 << 16
    assert flown.sum() > 10
    assert np.abs(scet_to_utc(ticks) - result)[flown].max() < np.timedelta64(60, "ms")


def test_kernels_are_closed_and_found(tmp_path, shared):
    with pytest.raises(MissingFile):
        Kernels(tmp_path)
    closed = Kernels(shared / "data/spice")
    with pytest.raises(UsageError, match="not open"):
        closed.orbit("2020-03-01")
    with Kernels(shared / "data/spice/naif0012.tls") as leap_seconds, pytest.raises(NotFound):
        # Kernels of the other fixture may be loaded too: a time that no kernel covers.
        leap_seconds.orbit("2031-01-01")
