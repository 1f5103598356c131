"""The observing summary: rates in energy bands, modulation, ephemeris and flags of a span of time, every 4 s.

The object, its verbs and its parts are those of the HESSI catalog of June 2000. Files of the flight are read and
written as they are (other bands, 18 segments, 32 flags); nothing of that is fixed here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stixflow.errors import InputFileError, NotFound, UsageError
from stixflow.hessi.archive import archive_root
from stixflow.hessi.rates import ccsds, compress_rates, decompress_rates, ut_of_utc, utc_at
from stixflow.hessi.tables import (
    Part,
    Table,
    find_files,
    make_table,
    parts_of,
    read_tables,
    record,
    write_tables,
)
from stixflow.time import TimeRange

_ENERGY_EDGES_KEV = (3.0, 6.0, 12.0, 25.0, 50.0, 100.0, 300.0, 1000.0, 2500.0, 20000.0)
INTERVAL_S = 4.0
EPHEMERIS_S = 20.0
FLAG_IDS = ("Attenuator State", "SAA passage", "Fast Rate Mode", "Eclipse", "Flare")
_NO_MODULATION = 10
"""Modulation variance of counts that scatter as Poisson's."""
MISSING = -1
"""What a part is that was not found, in the sentinel mode."""

Missing = Literal["raise", "sentinel"]
Columns = Mapping[str, ArrayLike]

_PARTS = {
    "obs_summ_rate": "HESSI OBS SUMMARY RATE ID TABLE",
    "mod_variance": "HESSI MOD VARIANCE ID TABLE",
    "ephemeris": "HESSI EPHEMERIS ID TABLE",
    "obs_summ_flag": "HESSI OBS SUMMARY FLAG ID TABLE",
    "particle_rate": "HESSI PARTICLE RATE ID TABLE",
    "qlook_pointing": "HESSI QLOOK POINTING ID TABLE",
    "qlook_roll_period": "HESSI QLOOK ROLL PERIOD ID TABLE",
    "qlook_roll_angle": "HESSI QLOOK ROLL ANGLE ID TABLE",
}
_NAMES = {table: name for name, table in _PARTS.items()}
_SUMMARY_ID = "HESSI OBS SUMMARY ID TABLE"
_SUMMARY_INFO = "HSI_OBSSUMMINFO"
_MAX_FLAGS = 16


@dataclass(slots=True, eq=False)
class ObservingSummary:
    """An observing summary, filled by `getdata`."""

    data_dir: str | Path | None = None
    """Root of the archive, instead of the environment variable HSI_DATA_ARCHIVE."""
    head: tuple[Table, ...] = ()
    """The tables before the parts: id, info, list of files."""
    parts: dict[str, Part] = field(default_factory=dict)

    def getdata(
        self,
        *,
        filename: str | Path | None = None,
        ut_time_range: tuple[object, object] | None = None,
        missing: Missing = "raise",
    ) -> NDArray[Any] | int:
        """Read a summary by file or by time range, and return its rates.

        Parameters
        ----------
        filename
            An observing summary file, or a daily catalog file.
        ut_time_range
            Two times, UTC or seconds since 1979-01-01, half-open. The days it touches are joined.
        missing
            "raise" NotFound, or return -1 and leave every part -1 ("sentinel").

        Returns
        -------
        Structured (time,): `time`, seconds since 1979-01-01, and `countrate` (band,), counts per second.
        """
        if (filename is None) == (ut_time_range is None):
            raise UsageError("getdata needs a filename or a ut_time_range", expected="one of them")
        try:
            found = read_summary(filename) if filename is not None else self._of_range(ut_time_range)
        except (LookupError, FileNotFoundError):
            self.head, self.parts = (), {}
            if missing == "raise":
                raise
            return MISSING
        self.head, self.parts = found.head, found.parts
        return self.get("data")  # type: ignore[no-any-return]

    def get(self, name: str) -> Any:
        """Return a part or a structure of the summary by its name.

        `info`, `data`, `data_times`, `countrate` (band, time), `version`, `summary_id`, and the parts `obs_summ_rate`,
        `mod_variance`, `ephemeris`, `obs_summ_flag`, `particle_rate` and those of the flight. A part that the summary
        does not have is -1.
        """
        if name in _PARTS:
            return self.parts.get(name, MISSING)
        if name == "info":
            return next((record(table) for table in self.head if table.name == _SUMMARY_INFO), MISSING)
        if name in ("version", "summary_id"):
            identity = next((record(table) for table in self.head if table.name == _SUMMARY_ID), None)
            key = {"version": "version_number", "summary_id": "obs_summary_id"}[name]
            return MISSING if identity is None else identity[key]
        if name not in ("data", "data_times", "countrate"):
            raise UsageError(f"a summary has no {name!r}", expected=", ".join(["info", "data", *_PARTS]))
        rate = self.parts.get("obs_summ_rate")
        if rate is None:
            return MISSING
        if name == "data_times":
            return rate.times()
        return _rates(rate) if name == "data" else _rates(rate)["countrate"].T

    def flag(self, name: str) -> NDArray[np.uint8]:
        """One flag at every interval, by its name.

        Raises
        ------
        NotFound
            If the summary has no such flag.
        """
        part = self.parts.get("obs_summ_flag")
        names = [] if part is None else [text.casefold() for text in part.info["flag_ids"]]
        if part is None or name.casefold() not in names:
            raise NotFound(f"no flag {name!r}", expected=", ".join(names) or "a summary with flags")
        return np.asarray(part.data["flags"][:, names.index(name.casefold())])

    def write(self, filename: str | Path) -> None:
        """Write the summary as FITS, in the layout of the flight."""
        info = self.get("info")
        keywords = {"TELESCOP": "HESSI", "OBJECT": "Sun", "ORIGIN": "stixflow"}
        if info != MISSING:
            keywords |= {"DATE_OBS": info["summary_start_time"], "DATE_END": info["summary_end_time"]}
        write_tables(filename, self.tables(), keywords)

    def tables(self) -> list[Table]:
        """Every table of the summary, in the order of the file."""
        parts = [self.parts[name] for name in _PARTS if name in self.parts]
        return [*self.head, *(table for part in parts for table in part.tables())]

    def _of_range(self, ut_time_range: tuple[object, object] | None) -> ObservingSummary:
        start, stop = (ut_seconds(one) for one in ut_time_range or ())
        if not start < stop:
            raise UsageError("an empty time range", expected="a start before the stop")
        root = archive_root(self.data_dir)
        days = TimeRange(utc_at(start), utc_at(stop)).days()
        summaries = []
        for day in days:
            stamp = f"{day:%Y%m%d}"
            files = find_files(root, [f"hsi_obssumm_{stamp}_", f"hessi_catalog_{stamp}"])
            if not files:
                raise NotFound(f"no observing summary of {day}", expected=f"hsi_obssumm_{stamp}_*.fits under {root}")
            summaries.append(read_summary(files[0]))
        return join_summaries(summaries, start, stop)


def ut_seconds(time: object) -> float:
    """Seconds since 1979-01-01 of a time, which may be given so already."""
    return float(time) if isinstance(time, (int, float)) else float(ut_of_utc(time))


def read_summary(path: str | Path) -> ObservingSummary:
    """Read an observing summary file.

    Raises
    ------
    MissingFile, InputFileError
        If there is no file, or no observing summary in it.
    """
    tables = read_tables(path)
    parts = {_NAMES[name]: part for name, part in parts_of(tables).items() if name in _NAMES}
    if "obs_summ_rate" not in parts:
        raise InputFileError(
            f"{Path(path).name} holds no observing summary",
            expected="a file such as hsi_obssumm_20110404_042.fits.gz",
        )
    used = {id(table.rows) for part in parts.values() for table in part.tables()}
    head = tuple(table for table in tables if id(table.rows) not in used)
    return ObservingSummary(head=head, parts=parts)


def join_summaries(summaries: Sequence[ObservingSummary], start: float, stop: float) -> ObservingSummary:
    """Join summaries that follow each other, and cut them to [start, stop).

    Raises
    ------
    NotFound
        If intervals are missing between two of them.
    """
    parts: dict[str, Part] = {}
    for name in summaries[0].parts:
        pieces = [one.parts[name] for one in summaries if name in one.parts]
        whole = pieces[0]
        for piece in pieces[1:]:
            step = whole.times()[1] - whole.times()[0] if len(whole.times()) > 1 else INTERVAL_S
            if abs(piece.times()[0] - whole.times()[-1] - step) > step / 2:
                raise NotFound(f"{name} has a gap before {ccsds(float(piece.times()[0]))}")
            rows = np.concatenate([whole.data_table.rows, piece.data_table.rows])
            whole = whole.with_rows(rows, float(whole.times()[0]))
        parts[name] = whole.cut(start, stop)
    concatenated = len(summaries) > 1 or bool(summaries[0].get("info")["concat_flag"])
    simulated = any(bool(one.get("info")["simulated_data"]) for one in summaries)
    times = parts["obs_summ_rate"].times()
    return ObservingSummary(
        head=_head(float(times[0]), float(times[-1] + INTERVAL_S), simulated, concatenated), parts=parts
    )


def make_summary(
    ut_ref: float,
    rates: ArrayLike,
    *,
    energy_edges: Sequence[float] = _ENERGY_EDGES_KEV,
    mask: ArrayLike | None = None,
    modulation: ArrayLike | None = None,
    modulation_edges: tuple[float, float] = (6.0, 25.0),
    modulation_bins: int = 40,
    xyz_km: ArrayLike | None = None,
    flags: Mapping[str, ArrayLike] | None = None,
    particles: ArrayLike | None = None,
    simulated: bool = False,
    compress: bool = True,
) -> ObservingSummary:
    """Make a summary from arrays, one row per 4 s from `ut_ref`.

    Parameters
    ----------
    ut_ref
        Seconds since 1979-01-01 of the first interval.
    rates
        (time, band) counts per second.
    mask
        Detector segments used, 1 or 0; 27 of them by default.
    modulation
        (time, collimator) ratios to Poisson scatter, from `modulation_variance`.
    xyz_km
        (n, 3) position of the spacecraft every 20 s.
    flags
        Values (time,) by name, at most 16.
    particles
        (time, 2) counts per second of the particle detector.
    compress
        Rates in one byte; else as 32-bit floats, as NaN where missing.

    Raises
    ------
    UsageError
        If the energy edges are not one more than the bands.
    """
    rate = np.asarray(rates, dtype=np.float64)
    n, bands = rate.shape
    if len(energy_edges) != bands + 1:
        raise UsageError(f"{bands} bands and {len(energy_edges)} energy edges", expected="one edge more than bands")
    segments = np.ones(27, np.uint8) if mask is None else np.asarray(mask, np.uint8)
    data: dict[str, tuple[Columns, Columns]] = {"obs_summ_rate": _rate_columns(rate, energy_edges, segments, compress)}
    if modulation is not None:
        data["mod_variance"] = _modulation_columns(np.asarray(modulation), modulation_edges, modulation_bins)
    if xyz_km is not None:
        data["ephemeris"] = {}, {"XYZ_ECI": np.asarray(xyz_km, dtype=np.float32)}
    if flags is not None:
        data["obs_summ_flag"] = _flag_columns(flags, n)
    if particles is not None:
        data["particle_rate"] = {}, {"COUNTRATE": compress_rates(particles)}
    span = (ut_ref, ut_ref + n * INTERVAL_S)
    parts = {name: _part(name, infos, columns, span) for name, (infos, columns) in data.items()}
    return ObservingSummary(head=_head(*span, simulated, concatenated=False), parts=parts)


def modulation_variance(counts: ArrayLike) -> NDArray[np.uint8]:
    """Scatter of the counts in the bins of one interval over that of Poisson, times 10, as a byte.

    The square root of variance over mean of the bins: 10 says no modulation, 0 no counts.

    Parameters
    ----------
    counts
        (..., bin), 40 bins of 0.1 s by default.
    """
    values = np.asarray(counts, dtype=np.float64)
    mean = values.mean(axis=-1)
    ratio = np.sqrt(values.var(axis=-1, ddof=1) / np.where(mean > 0, mean, 1.0))
    return np.asarray(np.clip(np.rint(_NO_MODULATION * np.where(mean > 0, ratio, 0.0)), 0, 255), dtype=np.uint8)


def modulation_probability(counts: ArrayLike) -> NDArray[np.float64]:
    """Probability that counts without modulation scatter more than these: small means modulated.

    χ² of the bins against their mean; NaN without counts.

    Parameters
    ----------
    counts
        (..., bin) as for `modulation_variance`.
    """
    from scipy.stats import chi2

    values = np.asarray(counts, dtype=np.float64)
    mean = values.mean(axis=-1)
    square = ((values - mean[..., None]) ** 2).sum(axis=-1) / np.where(mean > 0, mean, np.nan)
    return np.asarray(chi2.sf(square, values.shape[-1] - 1))


def _rate_columns(
    rate: NDArray[np.float64], edges: Sequence[float], segments: NDArray[np.uint8], compress: bool
) -> tuple[Columns, Columns]:
    names = [f"{low:g} - {high:g}" for low, high in pairwise(edges)]
    infos: Columns = {
        "SEG_INDEX_MASK": segments[None],
        "N_ENERGY_BANDS": np.array([len(names)], np.int16),
        "ENERGY_EDGES": np.array([edges], np.float32),
        "DIM1_UNIT": ["Energy bands (keV)"],
        "DIM1_IDS": [names],
    }
    return infos, {"COUNTRATE": compress_rates(rate) if compress else rate.astype(np.float32)}


def _modulation_columns(values: NDArray[Any], edges: tuple[float, float], bins: int) -> tuple[Columns, Columns]:
    infos: Columns = {
        "VARIANCE_NBIN": np.array([bins], np.int16),
        "ENERGY_EDGES": np.array([edges], np.float32),
        "DIM1_UNIT": ["Collimator"],
        "DIM1_IDS": [[str(8 + i) for i in range(values.shape[1])]],
    }
    return infos, {"MOD_VARIANCE": values.astype(np.uint8)}


def _flag_columns(flags: Mapping[str, ArrayLike], n: int) -> tuple[Columns, Columns]:
    if len(flags) > _MAX_FLAGS:
        raise UsageError(f"{len(flags)} flags", expected=f"at most {_MAX_FLAGS}")
    values = np.zeros((n, _MAX_FLAGS), np.uint8)
    for i, column in enumerate(flags.values()):
        values[:, i] = np.asarray(column)
    names = [*flags, *[""] * (_MAX_FLAGS - len(flags))]
    return {"NFLAGS": np.array([len(flags)], np.int16), "FLAG_IDS": [names]}, {"FLAGS": values}


def _part(name: str, infos: Columns, data: Columns, span: tuple[float, float]) -> Part:
    start, stop = (ccsds(one, zulu=False) for one in span)
    identity = make_table(
        _PARTS[name],
        {
            "VERSION NUMBER": np.array([0], np.int16),
            "ID STRING": [f"HSI_{name.upper()}: {start} TO {stop}"],
            "INFO VERSION NUMBER": np.array([1], np.int16),
            "DATA VERSION NUMBER": np.array([0], np.int16),
        },
    )
    stem = f"HSI_{name.upper().replace('_', '')}"
    rows = make_table(f"{stem}DATA", data)
    clock: Columns = {
        "UT_REF": [span[0]],
        "N_TIME_INTV": np.array([len(rows.rows)], np.int32),
        "TIME_INTV": np.array([EPHEMERIS_S if name == "ephemeris" else INTERVAL_S], np.float32),
    }
    return Part(identity, make_table(f"{stem}INFO", {**clock, **infos}), rows)


def _head(start: float, stop: float, simulated: bool, concatenated: bool) -> tuple[Table, ...]:
    first, last = ccsds(start, zulu=False), ccsds(stop, zulu=False)
    return (
        make_table(
            _SUMMARY_ID,
            {
                "VERSION NUMBER": np.array([0], np.int16),
                "OBS SUMMARY ID": [f"HSI_OBS_SUMMARY: {first} TO {last}"],
                "INFO VERSION NUMBER": np.array([0], np.int16),
            },
        ),
        make_table(
            _SUMMARY_INFO,
            {
                "SUMMARY_START_TIME": [first],
                "SUMMARY_END_TIME": [last],
                "SIMULATED_DATA": np.array([simulated], np.int16),
                "CONCAT_FLAG": np.array([concatenated], np.int16),
            },
        ),
    )


def _rates(part: Part) -> NDArray[Any]:
    codes = np.asarray(part.data["countrate"])
    values = decompress_rates(codes) if codes.dtype.kind == "u" else codes
    rows = np.zeros(len(codes), dtype=[("time", np.float64), ("countrate", np.float32, codes.shape[1:])])
    rows["time"], rows["countrate"] = part.times(), values
    return rows
