"""The columns of the flare table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from stixflow.flares.find import WIDTH_LEVELS

GAP_MARGIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the flare table."""

    dtype: str
    units: str
    description: str


FLARE_COLUMNS: Mapping[str, Column] = MappingProxyType(
    {
        "flare_id": Column("str", "", "yymmddHHMM of the peak, truncated; later peaks of a minute get b, c, ..."),
        "start": Column("datetime64[ns]", "UTC", "start of the first bin of the flare"),
        "peak": Column("datetime64[ns]", "UTC", "start of the bin where the smoothed band is highest"),
        "stop": Column("datetime64[ns]", "UTC", "end of the last bin of the flare, not part of it"),
        "start_sigma_s": Column("float64", "s", "standard deviation of the start"),
        "peak_sigma_s": Column("float64", "s", "standard deviation of the peak time"),
        "stop_sigma_s": Column("float64", "s", "standard deviation of the end"),
        "duration_s": Column("float64", "s", "stop - start"),
        "bins": Column("int64", "1", "bins observed in [start, stop)"),
        "significance": Column("float64", "1", "root of the summed squares of the significances of the bands"),
        "false_alarms_per_day": Column("float64", "1 / d", "chance rises as significant in a day without flares"),
        "probability": Column("float64", "1", "that this is no chance rise"),
        "peak_band": Column("int64", "1", "band in which the peak was found, as an index"),
        "peak_counts": Column("int64", "counts / bin", "largest count of the lowest band in [start, stop)"),
        "peak_counts_{band}": Column("int64", "counts / bin", "largest count in [start, stop)"),
        "peak_smoothed_{band}": Column("float64", "counts / bin", "largest smoothed count in [start, stop)"),
        "counts_{band}": Column("int64", "counts", "sum over [start, stop)"),
        "bkg_median_{band}": Column("float64", "counts / bin", "quiet background: median of an hour, or model"),
        "bkg_sigma_{band}": Column("float64", "counts / bin", "scatter of the bins of the quiet background"),
        "bins_above_{band}": Column("int64", "1", "bins more than two sigma above the background"),
        "bkg_start": Column("datetime64[ns]", "UTC", "start of the quiet frame used as background, if one was"),
        "bkg_age_s": Column("float64", "s", "time between the flare's peak and the nearest quiet time, 0 inside"),
        "baseline": Column("float64", "counts / bin", "floor of the peak band: envelope minimum, or model at the peak"),
        "prominence": Column("float64", "counts / bin", "prominence of the peak in the smoothed band"),
        "total_counts": Column("int64", "counts", "sum of the lowest band over [start, stop)"),
        "signal_counts": Column("float64", "counts", "total counts less the baseline of every bin"),
        "mean_rate": Column("float64", "counts / s", "total counts over the observed seconds"),
        **{
            f"{side}_{level}": Column("datetime64[ns]", "UTC", f"{side} of the peak {level} % below its top")
            for level in WIDTH_LEVELS
            for side in ("start", "stop")
        },
        **{
            f"duration_{level}_s": Column("float64", "s", f"stop_{level} - start_{level}, both bins included")
            for level in WIDTH_LEVELS
        },
        "n_sub_peaks": Column("int64", "1", "lesser peaks inside the flare"),
        "sub_peaks": Column("str", "UTC", "their times, separated by spaces"),
        "upper_band": Column("int64", "1", "highest band with flare counts, as an index"),
        "upper_energy_keV": Column("float64", "keV", "upper edge of that band"),
        "goes_flux": Column("float64", "W m-2", "estimated 0.1-0.8 nm flux, not valid if rcr_max > 0"),
        "goes_flux_min": Column("float64", "W m-2", "lower bound of the estimate"),
        "goes_flux_max": Column("float64", "W m-2", "upper bound of the estimate"),
        "goes_class": Column("str", "", "class of the estimate, empty if there is none"),
        "goes_class_min": Column("str", "", "class of the lower bound"),
        "goes_class_max": Column("str", "", "class of the upper bound"),
        "goes_fit_flux": Column("float64", "W m-2", "flux above the GOES background by the fitted relation"),
        "goes_fit_flux_min": Column("float64", "W m-2", "one standard deviation below"),
        "goes_fit_flux_max": Column("float64", "W m-2", "one standard deviation above"),
        "distance_au": Column("float64", "au", "distance of the spacecraft from the Sun used for the estimate"),
        "light_time_s": Column("float64", "s", "to add for the time at Earth, by the centre of the Sun"),
        "rcr_start": Column("int64", "1", "rate control regime in the first bin"),
        "rcr_peak": Column("int64", "1", "rate control regime at the peak"),
        "rcr_stop": Column("int64", "1", "rate control regime in the last bin"),
        "rcr_max": Column("int64", "1", "highest rate control regime in the flare; above 0 the attenuator was in"),
        "attenuator_motions": Column("int64", "1", "changes between regime 0 and others inside the flare"),
        "goes_valid": Column("bool", "", "there is an estimate and the attenuator stayed out"),
        "is_boundary": Column("bool", "", "the flare may go on beyond the observed time"),
        "has_gap": Column("bool", "", f"bins are missing in the flare or within {GAP_MARGIN_S:.0f} s of it"),
        "is_duplicate_id": Column("bool", "", "another peak falls into the same minute"),
        "flags": Column("str", "", "as in the HESSI list: An an GS GD GE NS PS"),
        "veto": Column("str", "", "why this is no flare, empty for flares"),
        "method": Column("str", "", "detection method"),
    }
)
"""Every column of the flare table with its unit; counts are per quick-look bin, 4 s by default.

A name with ``{band}`` stands for one column per energy band, numbered from the lowest: ``peak_counts_0`` and so on.
"""


def flare_columns(bands: int) -> dict[str, Column]:
    """Return the columns of the table for a light curve with so many energy bands, in order."""
    return {
        name.format(band=band): column
        for name, column in FLARE_COLUMNS.items()
        for band in (range(bands) if "{band}" in name else (0,))
    }
