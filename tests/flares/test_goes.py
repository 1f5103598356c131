"""The operational GOES estimate and the text of a class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stixflow.flares import estimate_goes, goes_class


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
