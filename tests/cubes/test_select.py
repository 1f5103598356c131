from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from example_cubes import make_dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from stixflow.cubes.select import pixel_lightcurve, to_timeseries
from stixflow.cubes.store import open_store, write_store
from stixflow.errors import NotFound, UsageError


def _cube(**more: int):  # type: ignore[no-untyped-def]
    cube = make_dataset("sci_pixels", **{"n_time": 6, "n_energy": 5} | more)
    cube["counts"].values.flat[-1] = 3
    cube["detector_mask"][...] = 0xFFFFFFFF
    cube["pixel_mask"][...] = 0xFFF
    cube["observed"][...] = True
    return cube


@settings(deadline=None)
@given(
    detectors=st.none() | st.lists(st.integers(0, 31), min_size=1, unique=True),
    pixels=st.none() | st.lists(st.integers(0, 11), min_size=1, unique=True),
    energies=st.none() | st.tuples(st.integers(4, 6), st.integers(7, 8)),
)
def test_it_is_the_sum_over_what_was_chosen(
    detectors: list[int] | None, pixels: list[int] | None, energies: tuple[float, float] | None
) -> None:
    cube = _cube()
    curve = pixel_lightcurve(cube, energy_range=energies, detectors=detectors, pixels=pixels)
    inside = slice(None) if energies is None else slice(int(energies[0]) - 4, int(energies[1]) - 4)
    wanted = cube["counts"].values[:, inside]
    wanted = wanted if detectors is None else wanted[:, :, detectors]
    wanted = wanted if pixels is None else wanted[..., pixels]
    np.testing.assert_array_equal(curve["counts"], wanted.sum((2, 3)))
    assert curve["observed"].values.all()
    assert curve["energy"].size == wanted.shape[1]
    assert curve["time"].equals(cube["time"])


def test_what_was_not_sent_is_not_observed() -> None:
    """Another detector or pixel that was missing does not matter; one of the chosen does."""
    cube = _cube()
    cube["detector_mask"][1] = 0xFFFFFFFF ^ (1 << 5)
    cube["pixel_mask"][2] = 0x0FF
    cube["observed"][3, 2] = False
    observed = pixel_lightcurve(cube, detectors=[5, 6], pixels=[10])["observed"].values
    assert observed.all(axis=1).tolist() == [True, False, False, False, True, True]
    assert observed[3].tolist() == [True, True, False, True, True]
    assert pixel_lightcurve(cube, detectors=[6], pixels=[0])["observed"].values[:3].all()
    whole = pixel_lightcurve(cube)["observed"].values
    assert whole[:3].all()


def test_wrong_choices_are_named() -> None:
    cube = _cube()
    with pytest.raises(NotFound, match=r"4-5, 5-6.*8-inf keV"):
        pixel_lightcurve(cube, energy_range=(20, 30))
    for choice in ([32], [-1], [], [3, 3]):
        with pytest.raises(UsageError, match="indices of 0 to 31"):
            pixel_lightcurve(cube, detectors=choice)


def test_only_the_chosen_energies_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_store(tmp_path / "a.zarr", [_cube(n_time=500, n_energy=16)])
    cube = open_store(tmp_path / "a.zarr")
    asked = []
    monkeypatch.setattr(
        "stixflow.cubes.store.reading._read_with_zarr", lambda _files, _path, _node, part: asked.append(part) or 1 / 0
    )
    with pytest.raises(ZeroDivisionError):
        pixel_lightcurve(cube, energy_range=(5, 8))
    assert asked[0][1] == slice(1, 4, 1)


def test_a_sunpy_timeseries_has_nan_where_nothing_was_observed() -> None:
    pytest.importorskip("sunpy.timeseries", reason="needs sunpy[timeseries]", exc_type=ImportError)
    cube = _cube()
    cube["observed"][2, 1] = False
    series = to_timeseries(pixel_lightcurve(cube, energy_range=(4, 7)))
    frame = series.to_dataframe()
    assert frame.columns.tolist() == ["4-5 keV", "5-6 keV", "6-7 keV"]
    assert np.isnan(frame["5-6 keV"].iloc[2])
    assert int(frame.isna().sum().sum()) == 1
    assert frame["4-5 keV"].iloc[0] == cube["counts"].values[0, 0].sum()
    assert str(series.units["4-5 keV"]) == "ct"
