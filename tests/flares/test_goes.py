"""The operational GOES estimate and the text of a class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stixflow.errors import InputFileError
from stixflow.flares import (
    estimate_goes,
    fit_goes,
    goes_class,
    light_time_s,
    measure_goes,
    read_official,
    read_xrs,
)


def test_operational_estimates(shared: Path) -> None:
    table = pd.read_csv(shared / "oracle/flares/goes_estimate_vectors.csv")
    estimate = estimate_goes(table["lc_peak_0"], table["lc_bgk_peak_0"], table["r_au"])
    for name, flux in {"min": estimate.low, "mean": estimate.flux, "max": estimate.high}.items():
        np.testing.assert_allclose(np.log10(flux), table[f"formula_{name}_log10"], rtol=1e-12)
        np.testing.assert_allclose(np.log10(flux), table[f"goes_{name}_flux_est"], rtol=0, atol=5e-6)
        assert [goes_class(value) for value in flux] == table[f"goes_{name}_class_est"].tolist()
    assert [goes_class(value, decimals=1) for value in table["GOES_flux"]] == table["GOES_class"].tolist()


def test_classes_of_the_official_list(shared: Path) -> None:
    from astropy.io import fits

    with fits.open(
        shared / "data/flarelists/solo_L3_stix-flarelist-sdcloc_20240901T000000-20241001T004710_V02.fits"
    ) as hdus:
        rows = hdus[1].data
        for name in ("min", "mean", "max"):
            written = ["" if text == "nan" else str(text) for text in rows[f"goes_{name}_class_est"]]
            assert [goes_class(10.0**log) for log in rows[f"goes_{name}_flux_est"].tolist()] == written
        measured = ["" if text == "nan" else str(text) for text in rows["GOES_class"]]
        assert [goes_class(flux, decimals=1) for flux in rows["GOES_flux"].tolist()] == measured


@pytest.mark.parametrize(
    ("flux", "estimated", "measured"),
    [
        (5e-8, "A", "A"),
        (9.94e-8, "A", "A"),
        (9.96e-8, "B1", "B1.0"),
        (9.54e-7, "B10", "B9.5"),
        (9.96e-7, "C1", "C1.0"),
        (4.24e-6, "C4", "C4.2"),
        (9.58e-5, "M10", "M9.6"),
        (1.23e-3, "X12", "X12.0"),
        (float("nan"), "", ""),
        (0.0, "", ""),
    ],
)
def test_class_text(flux: float, estimated: str, measured: str) -> None:
    assert goes_class(flux) == estimated
    assert goes_class(flux, decimals=1) == measured


def test_no_estimate_without_excess_or_distance() -> None:
    estimate = estimate_goes([250, 249, 400, 400], 250, [1.0, 1.0, np.nan, 1.0])
    assert np.isnan(estimate.flux).tolist() == [True, True, True, False]
    assert estimate.low[3] < estimate.flux[3] < estimate.high[3]


def seen_from_earth(shared: Path) -> pd.DataFrame:
    """Return listed flares that GOES saw, with the flux above the background: the 5th percentile of +-2 days."""
    table = read_official(shared / "data/flarelists/STIX_flarelist_w_locations_20210214_20230901_version1.csv")
    table = table[table["visible_from_earth"] & (table["goes_measured_flux"] > 0)]
    time, flux = table["peak"].to_numpy().astype("datetime64[s]").astype(float), table["goes_measured_flux"].to_numpy()
    background = np.array([np.percentile(flux[np.abs(time - one) < 2 * 86400], 5) for one in time])
    return table.assign(net=flux - background)[~table["attenuator_listed"]]


def test_the_fit_is_as_good_as_it_says(shared: Path) -> None:
    table = seen_from_earth(shared)
    x = np.log10((table["peak_counts_0"] - table["bkg_median_0"]) * table["distance_au"] ** 2)
    for year in (2021, 2022, 2023):
        some = table[(table["peak"].dt.year == year) & x.between(3.5, 5.8) & (table["net"] > 0)]
        fit = fit_goes(some["peak_counts_0"], some["bkg_median_0"], some["distance_au"], background_sigma=18.0)
        assert len(some) > 100
        assert abs(np.median(np.log10(some["net"] / fit.flux))) < 0.08
        inside = (some["net"] >= fit.low) & (some["net"] <= fit.high)
        assert 0.6 < inside.mean() < 0.85


def test_the_fit_doubts_faint_flares_and_extremes() -> None:
    fit = fit_goes([300.0, 2000.0, 30_000.0, 5e6], 250.0, 0.9, background_sigma=18.0)
    width = np.log10(fit.high / fit.low)
    assert width[0] > width[1] > width[2]
    assert width[3] > width[2]
    assert (np.diff(fit.flux) > 0).all()
    assert np.isnan(fit_goes(200.0, 250.0, 0.9).flux)


def test_light_time_of_the_lists(shared: Path) -> None:
    table = read_official(shared / "data/flarelists/STIX_flarelist_w_locations_20210214_20230901_version1.csv")
    off = light_time_s(table["peak"].to_numpy(), table["distance_au"].to_numpy()) - table["light_time_s"]
    # 1e-4 au of the Earth's distance are 0.05 s. Later the list takes distance and light time at different moments.
    of_2021 = off[table["peak"].dt.year == 2021]
    assert abs(of_2021.median()) < 0.02
    assert of_2021.abs().quantile(0.9) < 0.1
    assert off.abs().max() < 2.0


def test_measured_flux_is_taken_at_earth_time(shared: Path) -> None:
    xrs = read_xrs(shared / "data/rhessi/sci_xrsf-l2-avg1m_g16_d20210101_truncated.nc")
    assert xrs["xrsb_flux"].dims == ("time",)
    peak = pd.Timestamp("2021-01-01T23:00:00")
    flares = pd.DataFrame(
        {
            "start": [peak - pd.Timedelta("2min"), pd.Timestamp("2022-01-01"), peak],
            "peak": [peak, pd.Timestamp("2022-01-01"), peak],
            "stop": [peak + pd.Timedelta("3min"), pd.Timestamp("2022-01-02"), peak],
            "light_time_s": [120.0, 120.0, np.nan],
        }
    )
    measured = measure_goes(flares, xrs)
    flux = xrs["xrsb_flux"].to_series()
    assert measured["goes_measured_flux"][0] == flux["2021-01-01T23:00:00":"2021-01-01T23:04:00"].max()
    assert measured["goes_measured_background"][0] == flux["2021-01-01T22:02:00":"2021-01-01T23:01:30"].min()
    assert measured["goes_measured_flux"][1:].isna().all()
    assert measured["goes_measured_class"].tolist()[1:] == ["", ""]
    pd.testing.assert_frame_equal(measure_goes(flares, flux.to_frame()), measured)
    assert "goes_measured_flux" not in flares


def test_a_file_that_is_no_xrs_file(tmp_path: Path) -> None:
    path = tmp_path / "xrs.nc"
    path.write_text("no netCDF")
    with pytest.raises(InputFileError, match=r"xrs\.nc is no XRS file"):
        read_xrs(path)
