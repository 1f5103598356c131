from __future__ import annotations

import astropy.units as u
import numpy as np
import pandas as pd
from astropy.time import Time

from stixflow.archive import to_table


def test_tables_of_astropy() -> None:
    frame = pd.DataFrame(
        {
            "flare_id": ["a", "b", "c", "d"],
            "duration_s": [60.0, 600.0, 10.0, 3600.0],
            "distance_au": [0.3, 0.5, 0.95, None],
            "upper_energy_keV": [10.0, 25.0, 10.0, 84.0],
        }
    ).assign(
        peak=np.array(["2022-01-01T00:00:00.123456789", "NaT", "2022-01-03", "2022-01-04"], "datetime64[ns]"),
        x_hpc=[1.0, None, 3.0, 4.0],
        sources=[[{"x": 1}], None, [], []],
        counts_0=[1, 2, 3, 4],
    )
    table = to_table(frame)
    assert isinstance(table["peak"], Time)
    assert table["peak"].mask.tolist() == [False, True, False, False]
    assert str(table["peak"][0].utc.isot).startswith("2022-01-01T00:00:00.123")
    assert table["duration_s"].unit == u.s
    assert table["x_hpc"].unit == u.arcsec
    assert np.isnan(table["x_hpc"][1])
    assert table["distance_au"].unit == u.au
    assert table["upper_energy_keV"].to(u.eV)[0].value == 10_000
    assert table["counts_0"].unit == u.ct
    assert table["sources"].tolist() == ['[{"x": 1}]', "", "[]", "[]"]
    assert "sum over" in table["counts_0"].info.description


def test_tables_without_a_row_or_a_time() -> None:
    frame = pd.DataFrame({"peak": np.array(["NaT", "NaT"], "datetime64[ns]"), "duration_s": [1.0, None]})
    table = to_table(frame)
    assert table["peak"].mask.all()
    empty = to_table(frame.iloc[:0])
    assert (len(empty), empty.colnames) == (0, ["peak", "duration_s"])
