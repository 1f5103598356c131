"""Datasets of the data model as level-1 files: the structure of the official files of version 02."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stixflow.cubes.model import N_CHANNELS, N_DETECTORS, N_PIXELS
from stixflow.errors import NotFound, UsageError
from stixflow.fits._writing import Column, primary_hdu, smallest, table_hdu, unfold, write_hdus
from stixflow.fits.origin import PLAN_CARDS, Origin
from stixflow.telemetry.compression import error, unpack_skm
from stixflow.time import TICKS_PER_SECOND, iso, scet_to_utc

if TYPE_CHECKING:
    from stixflow.ephemeris import Observer

_Array = NDArray[Any]

_CS = 10_000_000
_UNKNOWN = 0xFFFF
_ROWS_AT_ONCE = 64
_FINE_OF_OFFICIAL = 65535.0


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
        Light curve, pixel data or spectrogram, from telemetry or from `read_level1`.
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
    span = _Span.of(dataset)
    target = Path(path)
    if target.is_dir():
        target = target / _name(kind, dataset, span, version)
    origin = provenance or Origin()
    data = kind.data(dataset, span)
    control, of_row = kind.control(dataset, origin)
    tables = {
        "CONTROL": control,
        "DATA": kind.place_index(data, Column("control_index", smallest(of_row))),
        "IDB_VERSIONS": _databases(origin, span),
        **({"ENERGIES": _energies(dataset)} if "energy" in dataset.dims else {}),
    }
    when = iso(np.datetime64("now", "ms"))
    cards = _cards(kind, dataset, span, origin, name=target.name.removesuffix(".gz"), version=version, when=when)
    cards |= _observer_cards(_observer(dataset, ephemeris, span), span, origin)
    primary = primary_hdu(cards, history=_history(origin), comments=(*origin.comments, *_remarks(dataset)))
    write_hdus(target, [primary, *(table_hdu(name, columns) for name, columns in tables.items())], when=when)
    return target


def level1_name(dataset: xr.Dataset, *, version: str = "V02") -> str:
    """Name a level-1 file as the official ones are named; a part of a request has its number at the end."""
    return _name(_kind(dataset), dataset, _Span.of(dataset), version)


@dataclass(frozen=True, slots=True)
class _Span:
    """When the measurements began and ended, and each of their bins in hundredths of a second since."""

    begin: np.datetime64
    end: np.datetime64
    begin_scet: int
    end_scet: int
    time: NDArray[np.uint32]
    timedel: NDArray[np.uint32]

    @classmethod
    def of(cls, dataset: xr.Dataset) -> _Span:
        start, seconds, scet = (dataset[name].values for name in ("time_start", "timedel", "scet"))
        if not start.size:
            raise UsageError("the dataset has no time bins", expected="one or more", advice="choose another span")
        begin = (start[0] + np.timedelta64(500_000, "ns")).astype("datetime64[ms]").astype("datetime64[ns]")
        end_scet = int(scet[-1]) + round(float(seconds[-1]) * TICKS_PER_SECOND)
        clock = np.diff(scet_to_utc([int(scet[0]), end_scet]))[0]
        since = (dataset["time"].values - begin).astype(np.int64)
        return cls(
            begin=begin,
            end=begin + clock,
            begin_scet=int(scet[0]),
            end_scet=end_scet,
            time=np.rint(np.maximum(since, 0) / _CS).astype(np.uint32),
            timedel=np.rint(seconds * 100).astype(np.uint32),
        )

    @property
    def middle(self) -> np.datetime64:
        return self.begin + (self.end - self.begin) // 2

    @property
    def obt(self) -> tuple[float, float]:
        """Onboard times of beginning and end, their fine part divided by 65535 as in the official files."""
        both = (divmod(ticks, TICKS_PER_SECOND) for ticks in (self.begin_scet, self.end_scet))
        first, last = (coarse + fine / _FINE_OF_OFFICIAL for coarse, fine in both)
        return first, last


@dataclass(frozen=True, slots=True)
class _Kind:
    """How one product is written."""

    label: str
    ssid: int
    control: Callable[[xr.Dataset, Origin], tuple[list[Column], NDArray[np.intp]]]
    data: Callable[[xr.Dataset, _Span], list[Column]]
    index_first: bool = False
    by_request: bool = True

    def place_index(self, columns: list[Column], index: Column) -> list[Column]:
        """Put the column that points into CONTROL where the official files have it."""
        return [index, *columns] if self.index_first else [*columns, index]


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


def _name(kind: _Kind, dataset: xr.Dataset, span: _Span, version: str) -> str:
    start = f"solo_L1_stix-{kind.label}"
    if not kind.by_request:
        return f"{start}_{_compact(span.middle)[:8]}_{version}.fits"
    attrs = dataset.attrs
    part = f"-box{attrs['box']}" if int(attrs.get("boxes", 1)) > 1 else ""
    request = f"{int(attrs['request_id']):010d}-{int(attrs['seq_control']):05d}"
    return f"{start}_{_compact(span.begin)}-{_compact(span.end)}_{version}_{request}{part}.fits"


def _compact(time: np.datetime64) -> str:
    return iso(time)[:19].replace("-", "").replace(":", "")


# Tables ---------------------------------------------------------------------------------------------------------------


def _runs(*states: _Array) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Find where any of the states changes: first rows, and the number of the run of each row."""
    changes = np.zeros(len(states[0]), dtype=bool)
    for state in states:
        changes[1:] |= state[1:] != state[:-1]
    changes[0] = True
    return np.flatnonzero(changes), np.cumsum(changes) - 1


def _skm_columns(dataset: xr.Dataset, rows: NDArray[np.intp]) -> list[Column]:
    return [
        Column(f"compression_scheme_{name}_skm", np.stack(unpack_skm(dataset[f"{name}_skm"].values[rows]), axis=-1))
        for name in ("counts", "triggers")
    ]


def _edge_mask(dataset: xr.Dataset, n_rows: int) -> Column:
    mask = np.zeros((n_rows, N_CHANNELS + 1), dtype=np.uint8)
    mask[:, dataset["channel_start"].values] = 1
    mask[:, dataset["channel_stop"].values] = 1
    return Column("energy_bin_edge_mask", mask)


def _request_control(dataset: xr.Dataset, origin: Origin) -> tuple[list[Column], NDArray[np.intp]]:
    """One row for each run of bins with equal compression, for spectrograms also of equal detectors."""
    summed = dataset.attrs["product"] == "sci_spectrogram"
    raw = dataset.attrs.get("ssid") == 20
    states = [dataset[name].values for name in ("counts_skm", "triggers_skm", *(["detector_mask"] * summed))]
    first, of_row = _runs(*states)
    n = first.size
    raw_file = np.full((n, 1), ";".join(origin.raw_files) or " ")
    detectors = Column("detector_masks", unfold(dataset["detector_mask"].values[first], N_DETECTORS))
    return [
        _number_or_unknown("tc_packet_id_ref", origin.packet_id, n),
        Column("tc_packet_seq_control", np.full(n, dataset.attrs["seq_control"], dtype=np.uint16)),
        Column("request_id", np.full(n, dataset.attrs["request_id"], dtype=np.uint32)),
        _list_or_unknown("num_substructures", origin.substructures, n),
        Column("index", smallest(np.arange(n))),
        _list_or_unknown("packet", origin.packets, n),
        Column("raw_file", raw_file),
        Column("parent", np.full(n, ";".join(origin.parents) or " ")),
        *([] if raw else _skm_columns(dataset, first)),
        *([detectors] if summed else []),
        _edge_mask(dataset, n),
        Column("time_stamp", np.full(n, np.nan if origin.time_stamp is None else origin.time_stamp), "s"),
    ], of_row


def _number_or_unknown(name: str, value: int | None, n: int) -> Column:
    missing = _UNKNOWN if value is None else None
    return Column(name, np.full(n, _UNKNOWN if value is None else value, dtype=np.uint16), missing=missing)


def _list_or_unknown(name: str, values: tuple[int, ...], n: int) -> Column:
    shown = np.asarray(values or (_UNKNOWN,), dtype=np.uint16)
    return Column(name, np.tile(shown, (n, 1)), missing=None if values else _UNKNOWN)


def _day_control(dataset: xr.Dataset, origin: Origin) -> tuple[list[Column], NDArray[np.intp]]:
    """One row for each run of bins that follow each other on the onboard clock with equal settings."""
    scet, seconds = dataset["scet"].values, dataset["timedel"].values
    ticks = np.rint(seconds * TICKS_PER_SECOND).astype(np.int64)
    names = ("detector_mask", "pixel_mask", "counts_skm", "triggers_skm")
    first, of_row = _runs(scet - np.cumsum(ticks) + ticks, seconds, *(dataset[name].values for name in names))
    n = first.size
    return [
        Column("scet_coarse", (scet[first] >> 16).astype(np.uint32)),
        Column("scet_fine", scet[first] & 0xFFFF),
        Column("integration_time", seconds[first], "s"),
        Column("index", smallest(np.arange(n))),
        Column("raw_file", np.full(n, ";".join(origin.raw_files) or " ")),
        Column("packet", np.full(n, _UNKNOWN, dtype=np.int64), missing=_UNKNOWN),
        Column("parent", np.full(n, ";".join(origin.parents) or " ")),
        Column("detector_mask", unfold(dataset["detector_mask"].values[first], N_DETECTORS)),
        Column("pixel_mask", unfold(dataset["pixel_mask"].values[first], N_PIXELS)),
        _edge_mask(dataset, n),
        Column("num_energies", np.full(n, dataset.sizes["energy"], dtype=np.int64)),
        Column("num_samples", np.bincount(of_row).astype(np.int64)),
        *_skm_columns(dataset, first),
    ], of_row


def _times(span: _Span) -> list[Column]:
    return [Column("time", span.time, "cs"), Column("timedel", span.timedel, "cs")]


def _lightcurve(dataset: xr.Dataset, span: _Span) -> list[Column]:
    return [
        *_times(span),
        *_with_error("triggers", dataset["triggers"].values[:, None], dataset["triggers_skm"].values),
        Column("rcr", dataset["rcr"].values),
        *_with_error("counts", dataset["counts"].values, dataset["counts_skm"].values, "count"),
    ]


def _spectrogram(dataset: xr.Dataset, span: _Span) -> list[Column]:
    return [
        *_times(span),
        *_with_error("triggers", dataset["triggers"].values, dataset["triggers_skm"].values),
        Column("rcr", dataset["rcr"].values),
        Column("pixel_masks", unfold(dataset["pixel_mask"].values, N_PIXELS)),
        *_with_error("counts", dataset["counts"].values, dataset["counts_skm"].values, "count"),
    ]


def _pixels(dataset: xr.Dataset, span: _Span) -> list[Column]:
    masks = _state_columns(dataset)
    sent = masks[1].values.sum(axis=1, dtype=np.uint8)
    return [
        *_times(span),
        *masks,
        Column("num_pixel_sets", sent),
        *_with_error("triggers", dataset["triggers"].values, dataset["triggers_skm"].values),
        *_with_error("counts", _pixel_counts(dataset), dataset["counts_skm"].values, "count"),
    ]


def _raw_pixels(dataset: xr.Dataset, span: _Span) -> list[Column]:
    return [
        *_state_columns(dataset),
        Column("triggers", smallest(dataset["triggers"].values)),
        *_times(span),
        Column("counts", smallest(_pixel_counts(dataset)), "count"),
    ]


def _state_columns(dataset: xr.Dataset) -> list[Column]:
    return [
        Column("rcr", dataset["rcr"].values),
        Column("pixel_masks", unfold(dataset["pixel_mask"].values, N_PIXELS)),
        Column("detector_masks", unfold(dataset["detector_mask"].values, N_DETECTORS)),
    ]


def _pixel_counts(dataset: xr.Dataset) -> _Array:
    """Counts with the energies last; the pixel axis has only those pixels that some mask names."""
    counts = np.moveaxis(dataset["counts"].values, 1, -1)
    named = np.flatnonzero(unfold(np.bitwise_or.reduce(dataset["pixel_mask"].values), N_PIXELS))
    return counts if named.size in (0, N_PIXELS) else counts[:, :, named]


def _with_error(name: str, values: _Array, skm: _Array, unit: str = "") -> list[Column]:
    """Make a column and that of its compression error."""
    values = smallest(values)
    scheme = skm.reshape(-1, *[1] * (values.ndim - 1))
    errors = np.empty(values.shape, dtype=np.float32)
    for row in range(0, len(values), step := _rows_at_once(values)):
        errors[row : row + step] = error(values[row : row + step], scheme[row : row + step])
    return [Column(name, values, unit), Column(f"{name}_comp_err", errors, unit)]


def _rows_at_once(values: _Array) -> int:
    """Rows of about a million numbers."""
    return max(1, _ROWS_AT_ONCE * 16384 // max(1, values[:1].size))


def _energies(dataset: xr.Dataset) -> list[Column]:
    high = dataset["energy_high"].values
    return [
        Column("channel", smallest(np.arange(high.size))),
        Column("e_low", dataset["energy_low"].values.astype(np.float32), "keV"),
        Column("e_high", np.where(np.isinf(high), np.nan, high).astype(np.float32), "keV"),
    ]


def _databases(origin: Origin, span: _Span) -> list[Column]:
    version, start, end = zip(*(origin.databases or [("unknown", *span.obt)]), strict=True)
    return [
        Column("version", np.asarray(version)),
        Column("obt_start", np.asarray(start), "s"),
        Column("obt_end", np.asarray(end), "s"),
    ]


# Primary header -------------------------------------------------------------------------------------------------------


def _cards(
    kind: _Kind, dataset: xr.Dataset, span: _Span, origin: Origin, *, name: str, version: str, when: str
) -> dict[str, tuple[Any, str]]:
    counts, obt = dataset["counts"].values, span.obt
    return {
        "FILENAME": (name, "FITS filename"),
        "RAW_FILE": (";".join(origin.raw_files), "Raw filename(s)"),
        "PARENT": (";".join(origin.parents), "Source file current data product"),
        "DATE": (when, "FITS file creation date in UTC"),
        "LEVEL": ("L1", "Processing level of the data"),
        "ORIGIN": ("stixflow", "Where the file was made"),
        "CREATOR": ("stixflow", "FITS creation software"),
        "VERS_SW": (_software(), "Version of SW that provided FITS file"),
        "VERSION": (version.removeprefix("V"), "Version of data product"),
        "OBSRVTRY": ("Solar Orbiter", "Satellite name"),
        "TELESCOP": ("SOLO/STIX", "Telescope/Sensor name"),
        "INSTRUME": ("STIX", "Instrument name"),
        "STYPE": (21, "Service Type"),
        "SSTYPE": (6, "Sub-service Type"),
        "SSID": (kind.ssid, "Science Structure ID"),
        **(_request_cards(dataset, origin) if kind.by_request else {}),
        "DATAMIN": (int(counts.min()), "Minimum valid physical value"),
        "DATAMAX": (int(counts.max()), "Maximum valid physical value"),
        "BUNIT": ("counts", "Units of physical value"),
        "XPOSURE": (float(dataset["timedel"].values.min()), "[s] shortest exposure time"),
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
    return {
        "SCI_RID": (f"{int(dataset.attrs['request_id']):010d}", "Science data request ID"),
        "SCI_TCC": (origin.cards.get("SCI_TCC", ""), "Science data request TC packet seq. control"),
    }


def _observer(dataset: xr.Dataset, ephemeris: xr.Dataset | Observer | None, span: _Span) -> Observer | None:
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


def _observer_cards(place: Observer | None, span: _Span, origin: Origin) -> dict[str, tuple[Any, str]]:
    if place is None:
        return {}
    from stixflow.ephemeris import earth_delay
    from stixflow.imaging.observer_keywords import observer_keywords

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


def _history(origin: Origin) -> tuple[str, ...]:
    return (*origin.history, f"Processed by stixflow {_software()} L1")


def _remarks(dataset: xr.Dataset) -> list[str]:
    """Say what the tables cannot: packets that are missing, energies that are zero because they were not received."""
    remarks = [str(line) for line in dataset.attrs.get("missing", ())]
    observed: Mapping[Any, Any] = {"observed": dataset["observed"].values} if "observed" in dataset else {}
    lost = int((~observed["observed"]).sum()) if observed else 0
    if lost:
        remarks.append(f"{lost} of {observed['observed'].size} energy bins in time were not received and are 0 here")
    return [f"stixflow: {line}" for line in remarks]


def _software() -> str:
    from stixflow import __version__

    return __version__


_KINDS: Mapping[str, tuple[_Kind, ...]] = {
    "ql_lightcurve": (_Kind("ql-lightcurve", 30, _day_control, _lightcurve, index_first=True, by_request=False),),
    "sci_pixels": (
        _Kind("sci-xray-cpd", 21, _request_control, _pixels),
        _Kind("sci-xray-rpd", 20, _request_control, _raw_pixels),
    ),
    "sci_spectrogram": (_Kind("sci-xray-spec", 24, _request_control, _spectrogram),),
}

__all__ = ["level1_name", "write_level1"]
