"""Datasets of the data model as level-1 files: the structure of the official files of version 02."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stixflow.cubes.corrections import SHIFTED_DURATIONS
from stixflow.errors import NotFound, UsageError
from stixflow.fits import _calibration_tables as runs
from stixflow.fits import _day_tables as days
from stixflow.fits import _energy_tables as energies
from stixflow.fits import _housekeeping_tables as reports
from stixflow.fits import _request_tables as requests
from stixflow.fits._tables import Span
from stixflow.fits._writing import Column, primary_hdu, smallest, table_hdu
from stixflow.fits.hdus import write_hdus
from stixflow.fits.origin import PLAN_CARDS, Origin
from stixflow.instrument import energy_edges
from stixflow.time import iso

if TYPE_CHECKING:
    from stixflow.ephemeris import Observer

_SHIFT_REMARK = "offset fixed"
"""By which readers of official files know that times and counts no longer are one bin apart."""


def write_level1(
    path: str | Path,
    dataset: xr.Dataset,
    *,
    version: str = "V02",
    ephemeris: xr.Dataset | Observer | None = None,
    provenance: Origin | None = None,
) -> Path:
    """Write a Dataset of the data model as an official level-1 file.

    Parameters
    ----------
    path
        File, gzipped where its name ends in ``.gz``, or a folder that gets a file of the official name.
    dataset
        A Dataset of one of `EXPORTED`, from telemetry or from `read_level1`.
    version
        What the file calls its version; the structure is that of the official V02 whatever it says.
    ephemeris
        Where the spacecraft was: a Dataset of the product `ephemeris` or an `Observer`. Without it what the Dataset
        itself says, else the cards are left out.
    provenance
        What the Dataset does not hold: telemetry files, packets, history. Unknown numbers are marked as such (TNULL).

    Returns
    -------
    The path of the file.

    Raises
    ------
    UsageError
        If there is no official file of this product, or the Dataset is empty.
    """
    kind = _kind(dataset)
    span = Span.of(dataset)
    target = Path(path)
    if target.is_dir():
        target = target / _name(kind, dataset, span, version)
    origin = provenance or Origin()
    data = kind.data(dataset, span)
    control, of_row = kind.control(dataset, origin)
    tables = {
        "CONTROL": control,
        "DATA": kind.with_index(data, Column("control_index", smallest(of_row))),
        "IDB_VERSIONS": _databases(origin, span),
        **({"ENERGIES": _energies(dataset, span)} if kind.energies else {}),
        **(kind.more(dataset) if kind.more else {}),
    }
    when = iso(np.datetime64("now", "ms"))
    cards = _cards(kind, dataset, span, origin, name=target.name.removesuffix(".gz"), version=version, when=when)
    cards |= kind.cards(dataset) if kind.cards else {}
    cards |= _observer_cards(_observer(dataset, ephemeris, span), span, origin)
    primary = primary_hdu(
        cards, history=_history(origin, kind.level), comments=(*origin.comments, *_remarks(dataset, origin.comments))
    )
    write_hdus(target, [primary, *(table_hdu(name, columns) for name, columns in tables.items())])
    return target


def level1_name(dataset: xr.Dataset, *, version: str = "V02") -> str:
    """Name a level-1 file as the official ones are named; a part of a request has its number at the end."""
    return _name(_kind(dataset), dataset, Span.of(dataset), version)


@dataclass(frozen=True, slots=True)
class _Kind:
    """How one product is written."""

    label: str
    ssid: int
    control: Callable[[xr.Dataset, Origin], tuple[list[Column], NDArray[np.intp]]]
    data: Callable[[xr.Dataset, Span], list[Column]]
    index_at: int | None = None
    """Place in DATA of the column that points into CONTROL; the last where not given."""
    service: tuple[int, int] = (21, 6)
    energies: bool = True
    main: str | None = "counts"
    """What the extremes in the header are those of."""
    unit: str = "counts"
    """Of counts, in the header."""
    by_request: bool = False
    level: str = "L1"
    more: Callable[[xr.Dataset], Mapping[str, list[Column]]] | None = None
    """Tables that the official files do not have."""
    cards: Callable[[xr.Dataset], dict[str, tuple[Any, str]]] | None = None
    """Cards of the primary header that only this product has, or has otherwise."""

    def with_index(self, columns: list[Column], index: Column) -> list[Column]:
        place = len(columns) if self.index_at is None else self.index_at
        return [*columns[:place], index, *columns[place:]]


def _kind(dataset: xr.Dataset) -> _Kind:
    product = str(dataset.attrs.get("product"))
    for kind in _KINDS.get(product, ()):
        if dataset.attrs.get("ssid", kind.ssid) == kind.ssid:
            return kind
    raise UsageError(
        f"a dataset of the product {product} (SSID {dataset.attrs.get('ssid', 'not given')}) has no level-1 file",
        expected=f"one of {', '.join(_KINDS)}",
        advice="export another product",
    )


def _name(kind: _Kind, dataset: xr.Dataset, span: Span, version: str) -> str:
    start = f"solo_{kind.level}_stix-{kind.label}"
    if kind.level == "CAL":
        return f"{start}_{_compact(span.begin)}-{_compact(span.end)}_{version}.fits"
    if not kind.by_request:
        return f"{start}_{_compact(span.middle)[:8]}_{version}.fits"
    attrs = dataset.attrs
    part = f"-box{attrs['box']}" if int(attrs.get("boxes", 1)) > 1 else ""
    request = f"{int(attrs['request_id']):010d}-{int(attrs['seq_control']):05d}"
    return f"{start}_{_compact(span.begin)}-{_compact(span.end)}_{version}_{request}{part}.fits"


def _compact(time: np.datetime64) -> str:
    return iso(time)[:19].replace("-", "").replace(":", "")


def _energies(dataset: xr.Dataset, span: Span) -> list[Column]:
    """Energies of the bins, of all channels where the product has none; the overflow bin has no end."""
    edges = energy_edges(span.begin)
    bins = (dataset[name].values for name in ("energy_low", "energy_high")) if "energy" in dataset.dims else ()
    low, high = bins or (edges[:-1], edges[1:])
    return [
        Column("channel", smallest(np.arange(high.size))),
        Column("e_low", low.astype(np.float32), "keV"),
        Column("e_high", np.where(np.isinf(high), np.nan, high).astype(np.float32), "keV"),
    ]


def _databases(origin: Origin, span: Span) -> list[Column]:
    version, start, end = zip(*(origin.databases or [("unknown", *span.obt)]), strict=True)
    return [
        Column("version", np.asarray(version)),
        Column("obt_start", np.asarray(start), "s"),
        Column("obt_end", np.asarray(end), "s"),
    ]


# Primary header -------------------------------------------------------------------------------------------------------


def _cards(
    kind: _Kind, dataset: xr.Dataset, span: Span, origin: Origin, *, name: str, version: str, when: str
) -> dict[str, tuple[Any, str]]:
    obt, main = span.obt, dataset[kind.main].values if kind.main else np.zeros(1)
    return {
        "FILENAME": (name, "FITS filename"),
        "RAW_FILE": (";".join(origin.raw_files), "Raw filename(s)"),
        "PARENT": (";".join(origin.parents), "Source file current data product"),
        "DATE": (when, "FITS file creation date in UTC"),
        "LEVEL": (kind.level, "Processing level of the data"),
        "ORIGIN": ("stixflow", "Where the file was made"),
        "CREATOR": ("stixflow", "FITS creation software"),
        "VERS_SW": (_software(), "Version of SW that provided FITS file"),
        "VERSION": (version.removeprefix("V"), "Version of data product"),
        "OBSRVTRY": ("Solar Orbiter", "Satellite name"),
        "TELESCOP": ("SOLO/STIX", "Telescope/Sensor name"),
        "INSTRUME": ("STIX", "Instrument name"),
        "STYPE": (kind.service[0], "Service Type"),
        "SSTYPE": (kind.service[1], "Sub-service Type"),
        "SSID": (kind.ssid, "Science Structure ID"),
        **(_request_cards(dataset, origin) if kind.by_request else {}),
        "DATAMIN": (int(main.min()), "Minimum valid physical value"),
        "DATAMAX": (int(main.max()), "Maximum valid physical value"),
        "BUNIT": (kind.unit if kind.main == "counts" else "", "Units of physical value"),
        "XPOSURE": (span.timedel.min() / 100 if kind.main else 0.0, "[s] shortest exposure time"),
        **{key: (origin.cards.get(key, ""), _PLAN_COMMENTS[key]) for key in PLAN_CARDS},
        "OBT_BEG": (obt[0], "Start of acquisition time in OBT"),
        "OBT_END": (obt[1], "End of acquisition time in OBT"),
        "TIMESYS": ("UTC", "System used for time keywords"),
        "DATE-OBS": (iso(span.begin), "Start of acquisition time in UTC"),
        "DATE-BEG": (iso(span.begin), "Start of acquisition time in UTC"),
        "DATE-AVG": (iso(span.middle), "Center of acquisition time in UTC"),
        "DATE-END": (iso(span.end), "End of acquisition time in UTC"),
    }


_PLAN_COMMENTS = {
    "OBS_ID": "Unique ID of the individual observation",
    "OBS_TYPE": "Encoded version of OBS_MODE",
    "OBS_MODE": "Observation mode",
    "SOOPNAME": "Name of the SOOP Campaign",
    "SOOPTYPE": "Campaign ID(s) that the data belong to",
    "TARGET": "Type of target from planning",
}


def _request_cards(dataset: xr.Dataset, origin: Origin) -> dict[str, tuple[Any, str]]:
    box, boxes = (int(dataset.attrs.get(name, default)) for name, default in (("box", 0), ("boxes", 1)))
    part = {"SCI_BOX": (box, "Part of the request, from 0"), "SCI_BOXN": (boxes, "Parts of the request")}
    return {
        "SCI_RID": (f"{int(dataset.attrs['request_id']):010d}", "Science data request ID"),
        "SCI_TCC": (origin.cards.get("SCI_TCC", ""), "Science data request TC packet seq. control"),
        **(part if boxes > 1 else {}),
    }


def _observer(dataset: xr.Dataset, ephemeris: xr.Dataset | Observer | None, span: Span) -> Observer | None:
    # The room of the ephemeris reads its own files through this one.
    from stixflow.ephemeris import observer, observer_of

    if isinstance(ephemeris, xr.Dataset):
        return observer(ephemeris, span.middle)
    if ephemeris is not None:
        return ephemeris
    try:
        return observer_of(dataset)
    except NotFound:
        return None


def _observer_cards(place: Observer | None, span: Span, origin: Origin) -> dict[str, tuple[Any, str]]:
    if place is None:
        return {}
    from stixflow.ephemeris import earth_delay, observer_keywords

    systems = observer_keywords(place, iso(span.middle))
    to_earth, to_sun = earth_delay(span.middle, place.distance_m), float(systems["SUN_TIME"][0])
    delays = (np.timedelta64(round(seconds * 1e9), "ns") for seconds in (to_earth, -to_sun))
    at_earth, at_sun = (iso(span.begin + delay) for delay in delays)
    return {
        "SPICE_MK": (origin.cards.get("SPICE_MK", ""), "SPICE meta kernel file"),
        "RSUN_ARC": (place.rsun_arcsec, "[arcsec] Apparent photospheric solar radius"),
        "HGLT_OBS": (place.hglt_deg, "[deg] s/c heliographic latitude (B0 angle)"),
        "HGLN_OBS": (place.hgln_deg, "[deg] s/c heliographic longitude"),
        "DSUN_OBS": (place.distance_m, "[m] s/c distance from Sun"),
        **systems,
        **{key: (origin.cards[key], "[m/s] velocity of s/c") for key in _VELOCITIES if key in origin.cards},
        "EAR_TDEL": (to_earth, "[s] Time(Sun to Earth) - Time(Sun to S/C)"),
        "DATE_EAR": (at_earth, "Start time of observation, corrected to Earth"),
        "DATE_SUN": (at_sun, "Start time of observation, corrected to Sun"),
    }


_VELOCITIES = ("HCIX_VOB", "HCIY_VOB", "HCIZ_VOB", "OBS_VR")


def _history(origin: Origin, level: str) -> tuple[str, ...]:
    return (*origin.history, f"Processed by stixflow {_software()} {level}")


def _remarks(dataset: xr.Dataset, comments: tuple[str, ...]) -> list[str]:
    """Say what the tables cannot: what is missing, and what was corrected."""
    remarks = [str(line) for line in dataset.attrs.get("missing", ())]
    corrections = tuple(dataset.attrs.get("corrections", ()))
    remarks += [f"corrected: {name}" for name in corrections]
    shifted = SHIFTED_DURATIONS in corrections or dataset.attrs.get("bin_shift") == "corrected"
    if shifted and not any(_SHIFT_REMARK in line for line in comments):
        remarks.append(f"time and count arrays {_SHIFT_REMARK}")
    observed = dataset["observed"].values if "observed" in dataset else np.ones(1, dtype=bool)
    if not observed.all():
        remarks.append(
            f"{int((~observed).sum())} of {observed.size} values were not received: 0 here, with NaN as their error "
            "where there is one"
        )
    return [f"stixflow: {line}" for line in remarks]


def _software() -> str:
    from stixflow import __version__

    return __version__


_KINDS: Mapping[str, tuple[_Kind, ...]] = {
    "ql_lightcurve": (_Kind("ql-lightcurve", 30, days.lightcurve_control, days.curve, index_at=0),),
    "ql_background": (_Kind("ql-background", 31, days.background_control, days.curve, index_at=0),),
    "ql_variance": (_Kind("ql-variance", 33, days.variance_control, days.variance, index_at=2, main="variance"),),
    "ql_flareflag": (_Kind("ql-flareflag", 34, days.flareflag_control, days.flareflag, index_at=0, main=None),),
    "tm_status": (_Kind("ql-ql-tmstatusflarelist", 43, days.status_control, days.status, index_at=0, main=None),),
    "ql_spectra": (_Kind("ql-spectra", 32, days.spectra_control, days.spectra, index_at=0, unit=""),),
    "cal_spectrum": (_Kind("cal-energy", 41, runs.calibration_control, runs.calibration),),
    "energy_calibration": (
        _Kind(
            "cal-energy",
            41,
            energies.control,
            energies.data,
            index_at=2,
            energies=False,
            main=None,
            level="CAL",
            more=energies.fit_table,
            cards=energies.cards,
        ),
    ),
    "aspect": (_Kind("sci-aspect-burst", 42, days.aspect_control, days.aspect, energies=False, main=None),),
    **{
        f"hk_{name}": (
            _Kind(
                f"hk-{name}",
                sid,
                reports.housekeeping_control,
                reports.housekeeping,
                service=(3, 25),
                energies=False,
                main=None,
            ),
        )
        for sid, name in ((1, "mini"), (2, "maxi"))
    },
    "sci_pixels": (
        _Kind("sci-xray-cpd", 21, requests.request_control, requests.pixels, by_request=True),
        _Kind("sci-xray-rpd", 20, requests.request_control, requests.raw_pixels, by_request=True),
    ),
    "sci_pixel_sums": (_Kind("sci-xray-scpd", 22, requests.request_control, requests.pixel_sums, by_request=True),),
    "sci_visibilities": (
        _Kind("sci-xray-vis", 23, requests.request_control, requests.visibilities, main="flux", by_request=True),
    ),
    "sci_spectrogram": (_Kind("sci-xray-spec", 24, requests.request_control, requests.spectrogram, by_request=True),),
}
EXPORTED = tuple(name for name, (kind, *_) in _KINDS.items() if kind.level == "L1")
"""Products of the data model that can be written; an energy calibration can, too."""

__all__ = ["EXPORTED", "level1_name", "write_level1"]
