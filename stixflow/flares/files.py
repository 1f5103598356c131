"""Files to flares without an archive: official light curves and telemetry."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from stixflow.ephemeris.constants import AU_M
from stixflow.errors import InputFileError, UsageError
from stixflow.flares.detection import METHOD, Distance, detect, join_days

_CURVE, _MONITOR = "ql_lightcurve", "ql_background"


def detect_files(paths: Sequence[str | Path], method: str = METHOD) -> pd.DataFrame:
    """Find the flares in files: official FITS with light curves, telemetry, or both.

    All files are one curve. Where they hold the background detector too, ``"poisson"`` vetoes what it sees as the
    others do. The distance is that of the headers, else that of the built-in orbit.

    Returns
    -------
    A table as of `detect`; ``attrs["distance"]`` names where the distance is from (``header`` or ``built-in orbit``).

    Raises
    ------
    MissingFile, InputFileError
        If a file is not there, is none of these, or none of them holds a light curve.
    UsageError
        If the files have different energy bands or overlap in time.
    """
    read = _read([Path(path) for path in paths])
    curves = [dataset for dataset in read if dataset.attrs["product"] == _CURVE]
    monitors = [dataset for dataset in read if dataset.attrs["product"] == _MONITOR]
    if not curves:
        raise InputFileError(
            f"no light curve in {', '.join(Path(path).name for path in paths)}",
            expected="an official quick-look light curve (ql-lightcurve FITS), or telemetry with its packets",
            advice="give such a file, or --archive",
        )
    curve = join_days(curves)
    _check_joined(curves, curve)
    distance, origin = _distance(curves)
    monitor = join_days(monitors) if monitors and method == "poisson" else None
    table = detect(curve, method, distance_au=distance, background_detector=monitor)
    table.attrs["distance"] = origin
    return table


def _read(paths: Sequence[Path]) -> list[xr.Dataset]:
    """Read light curves and backgrounds; telemetry files are read together, so that what they share counts once."""
    official = [path for path in paths if _is_official(path)]
    raw = [path for path in paths if path not in official]
    return [*map(_of_official, official), *(_of_telemetry(raw) if raw else ())]


def _is_official(path: Path) -> bool:
    """Tell official files from telemetry, which may be FITS too (level-binary)."""
    from stixflow.fits.headers import peek

    cards = peek(path) if path.is_file() else {}
    return bool(cards) and cards.get("LEVEL") != "LB"


def _of_official(path: Path) -> xr.Dataset:
    from stixflow.fits import read_level1

    dataset = read_level1(path)
    if dataset.attrs["product"] not in (_CURVE, _MONITOR):
        raise InputFileError(
            f"{path.name} holds {dataset.attrs['product']}",
            expected="a quick-look light curve or background",
            advice="give the ql-lightcurve file of the day",
        )
    return dataset


def _of_telemetry(paths: Sequence[Path]) -> list[xr.Dataset]:
    from stixflow.cubes.build import build_day
    from stixflow.cubes.sources import record_names
    from stixflow.telemetry import decode, read_packets

    packets = read_packets(paths)
    products = {name: product for product in (_CURVE, _MONITOR) for name in record_names(product)}
    decoded = decode(packets, products=tuple(products))
    return [build_day(products[name], records) for name, records in decoded.items()]


def _check_joined(curves: Sequence[xr.Dataset], joined: xr.Dataset) -> None:
    """Refuse what `join_days` would leave out or what would be searched twice."""
    start = joined["time_start"].to_numpy()
    problem = ""
    if joined.sizes["time"] != sum(curve.sizes["time"] for curve in curves):
        problem = "the light curves have different energy bands"
    elif (np.diff(start) <= np.timedelta64(0, "ns")).any():
        problem = "the light curves overlap in time"
    if problem:
        raise UsageError(problem, expected="light curves that follow each other", advice="search them one by one")


def _distance(curves: Sequence[xr.Dataset]) -> tuple[Distance, str]:
    """Distance by time, and where it is from: headers, where every file has it."""
    known = [(curve["time_start"].to_numpy()[0], float(curve.attrs.get("dsun_m", np.nan)) / AU_M) for curve in curves]
    if not all(distance > 0 for _, distance in known):
        from stixflow.ephemeris import distance_au

        return distance_au, "built-in orbit"
    starts, distances = (np.array(values) for values in zip(*sorted(known), strict=True))

    def of_header(times: NDArray[np.datetime64]) -> NDArray[np.float64]:
        return np.asarray(distances[np.maximum(np.searchsorted(starts, times, side="right") - 1, 0)])

    return of_header, "header"
