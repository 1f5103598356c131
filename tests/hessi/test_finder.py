"""Flares in summaries: made ones, and the flares that the mission marked in a real one."""

import numpy as np
import pytest

from stixflow.errors import NotFound, UsageError
from stixflow.hessi import ObservingSummary, find_flares, make_summary, read_summary
from stixflow.hessi.finder import undo_steps

_START = 1017878400.0
_N = 1800


def _rates(at, height, *, width=15.0, bands=(1, 2), level=4.0, seed=0):
    rng = np.random.default_rng(seed)
    rates = rng.poisson(4 * level, (_N, 9)) / 4.0
    profile = height * np.exp(-0.5 * ((np.arange(_N) - at) / width) ** 2)
    for band in bands:
        rates[:, band] += rng.poisson(4 * profile) / 4.0
    return rates


@pytest.mark.parametrize("rule", ["2000", "flight"])
def test_flare_is_found_with_its_peak_background_and_band(rule):
    summary = make_summary(_START, _rates(700, 120.0, bands=(1, 2, 3)), simulated=True)
    found = find_flares(summary, rule=rule, first_id=124)
    data = found.get("data")
    main = data[np.argmax(data["peak_countrate"])]
    assert abs(main["peak_time"] - _START - 2800) <= 20
    assert main["start_time"] < main["peak_time"] < main["end_time"]
    assert main["end_time"] - main["start_time"] > 100
    assert main["bck_time"][1] - main["bck_time"][0] == 60
    assert main["bck_countrate"] < 0.1 * main["peak_countrate"]
    assert tuple(main["energy_hi"]) == (25.0, 50.0)
    assert main["total_counts"] > 3000
    assert data["id_number"][0] == 124
    assert found.get("info")["simulated_data"] == 1
    assert "nan | nan" in found.to_ascii()


def test_flight_rule_is_quiet_without_flares_and_drops_particles():
    quiet = make_summary(_START, _rates(700, 0.0))
    assert len(find_flares(quiet, rule="flight").get("data")) <= 1
    everywhere = make_summary(_START, _rates(700, 300.0, bands=range(1, 9)))
    assert len(find_flares(everywhere, rule="flight").get("data")) <= 1


def test_flags_of_a_flare_at_the_edge_of_an_eclipse():
    n = np.arange(_N)
    summary = make_summary(
        _START, _rates(600, 200.0, width=30.0),
        flags={"Eclipse": n < 590, "Attenuator State": 3 * (n > 600), "Fast Rate Mode": n > 1700},
    )  # fmt: skip
    first = find_flares(summary).get("data")[0]
    assert first["start_time"] == _START + 4 * 590
    assert list(first["flags"][:10]) == [0, 0, 0, 1, 0, 0, 0, 0, 0, first["flags"][9]]
    assert first["flags"][9] in (0, 3)


def test_attenuator_steps_are_undone():
    state = np.zeros(100, np.uint8)
    state[40:60] = 1
    true = np.linspace(100, 200, 100)
    seen = np.where(state > 0, true / 5, true)
    undone = undo_steps(seen, state, np.ones(100, bool))
    np.testing.assert_allclose(undone, true, rtol=0.03)
    np.testing.assert_array_equal(undo_steps(true, state * 0, np.ones(100, bool)), true)


def test_flares_that_the_mission_marked(shared):
    """2011-04-04: the summary says in which intervals the mission's own search saw ten flares."""
    summary = read_summary(shared / "data/rhessi/hsi_obssumm_20110404_042.fits.gz")
    marked = summary.flag("FLARE_FLAG") > 0
    steps = np.flatnonzero(np.diff(np.r_[0, marked.astype(int), 0])).reshape(-1, 2) * 4.0 + _START
    assert len(steps) == 10
    flight, early = (find_flares(summary, rule=rule).get("data") for rule in ("flight", "2000"))

    def hits(list_):
        return sum(((list_["start_time"] < stop) & (list_["end_time"] > start)).any() for start, stop in steps)

    assert hits(early) == 10
    assert hits(flight) >= 8
    false = [not ((steps[:, 0] < f["end_time"]) & (steps[:, 1] > f["start_time"])).any() for f in flight]
    assert sum(false) <= 2


def test_other_bands_and_wrong_rules():
    rates = _rates(700, 120.0)[:, :3]
    summary = make_summary(_START, rates, energy_edges=(4, 10, 15, 25))
    with pytest.raises(NotFound, match="6-12"):
        find_flares(summary, rule="flight")
    assert len(find_flares(summary, rule="flight", energy_range=(4, 15)).get("data")) >= 1
    with pytest.raises(UsageError):
        find_flares(summary, rule="2030")  # type: ignore[arg-type]
    with pytest.raises(NotFound):
        find_flares(ObservingSummary())
