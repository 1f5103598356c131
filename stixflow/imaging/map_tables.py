"""Tables beside a map: its sources, the intervals of a cube, and the coordinates of its axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stixflow.fits.hdus import binary_table
from stixflow.imaging.grids import FloatArray
from stixflow.imaging.metadata import Source
from stixflow.time import iso

_FORMS = {"i4": "J", "i8": "K", "f4": "E", "f8": "D"}
_INTERVAL_COLUMNS = (
    "energy_low", "energy_high", "counts", "background_counts", "live_time", "exposure", "total_flux", "center_x",
    "center_y", "pointing_x", "pointing_y", "roll",
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """A column of a table.

    `values` have one row each: numbers of one or more dimensions, booleans, texts, or a list of arrays of float32 of
    different lengths.
    """

    name: str
    values: NDArray[Any] | Sequence[NDArray[np.float32]]
    unit: str | None = None
    dim: str | None = None


def table_hdu(name: str, columns: Sequence[Column], **cards: Any) -> bytes:
    """One binary table as an extension; `cards` follow its name."""
    heap = bytearray()
    parts: list[tuple[NDArray[Any], dict[str, Any]]] = []
    for column in columns:
        values, form = _encoded(column)
        if isinstance(values, list):
            values, form = _descriptors(values, heap)
        described = {"TTYPE": column.name, "TFORM": form}
        described |= {"TUNIT": column.unit} if column.unit else {}
        described |= {"TDIM": column.dim} if column.dim else {}
        parts.append((values, described))
    return binary_table(name, parts, heap=bytes(heap), **cards)


def _encoded(column: Column) -> tuple[Any, str]:
    """Values as they stand in the file with their form; a list of arrays as it is."""
    if isinstance(column.values, list):
        return column.values, ""
    values = np.asarray(column.values)
    if values.dtype == np.bool_:
        return np.where(values, b"T", b"F").astype("S1"), "L"
    if values.dtype.kind == "U":
        return np.char.encode(values, "ascii"), f"{values.dtype.itemsize // 4}A"
    count = int(np.prod(values.shape[1:], dtype=np.int64))
    form = _FORMS[values.dtype.str[1:]]
    return values.astype(f">{values.dtype.str[1:]}"), form if values.ndim == 1 else f"{count}{form}"


def _descriptors(arrays: Sequence[NDArray[np.float32]], heap: bytearray) -> tuple[NDArray[np.int32], str]:
    """Lengths and places of arrays of different lengths, which go to the heap."""
    places = np.empty((len(arrays), 2), ">i4")
    for row, values in enumerate(arrays):
        places[row] = len(values), len(heap)
        heap += np.asarray(values, ">f4").tobytes()
    return places, f"PE({places[:, 0].max()})"


def axis_hdu(tables: Mapping[str, FloatArray]) -> bytes:
    """Coordinates along the axes of a cube, by the name of their column."""
    units = {"ENERGY": "keV", "TIME": "s"}
    columns = [
        Column(name, values.reshape(1, -1), units[name], dim=f"(1,{values.size})") for name, values in tables.items()
    ]
    return table_hdu("AXES", columns, EXTVER=(1, "extension value"))


def interval_hdu(images: xr.Dataset) -> bytes:
    """Limits, counts and live time of every map of a cube."""
    columns = [
        Column(name.upper(), np.array([iso(time) for time in images[name].to_numpy()]))
        for name in ("time_start", "time_stop")
    ]
    columns += [
        Column(name.upper(), images[name].to_numpy().astype(np.float64), images[name].attrs.get("units"))
        for name in _INTERVAL_COLUMNS
        if name in images
    ]
    return table_hdu("INTERVALS", columns)


def source_hdu(sources: Sequence[Source]) -> bytes:
    """Table of sources; positions of the STIX frame, of the sky and of the Sun, NaN where not known."""

    def values(name: str, kind: type) -> NDArray[Any]:
        return np.array([getattr(source, name) for source in sources], dtype=kind)

    def pairs(name: str) -> FloatArray:
        return np.array([getattr(source, name) or (np.nan, np.nan) for source in sources], dtype=np.float64)

    columns = [
        Column(keyword, values(name, kind), unit)
        for keyword, kind, unit, name in (
            ("IMAGE", np.int32, None, "image"), ("NUMBER", np.int32, None, "number"),
            ("PEAK", np.float64, None, "peak"), ("SNR", np.float64, None, "snr"), ("X", np.float64, "arcsec", "x"),
            ("Y", np.float64, "arcsec", "y"), ("SIGMA", np.float64, "arcsec", "sigma"),
            ("XCENTRE", np.float64, "arcsec", "centroid_x"), ("YCENTRE", np.float64, "arcsec", "centroid_y"),
            ("AREA", np.float64, "arcsec2", "area"), ("FLUX", np.float64, None, "flux"),
            ("PEAKS", np.int32, None, "peaks"), ("CUT", np.bool_, None, "is_cut"),
        )
    ]  # fmt: skip
    columns += [
        Column(keyword, pairs(name), unit)
        for keyword, unit, name in (
            ("HPC", "arcsec", "hpc"), ("HPC_SIG", "arcsec", "hpc_sigma"), ("HGS", "deg", "hgs"),
            ("HGS_SIG", "deg", "hgs_sigma"),
        )
    ]  # fmt: skip
    columns.append(Column("CONTOUR", [source.contour.ravel().astype(np.float32) for source in sources], "arcsec"))
    return table_hdu("SOURCES", columns)
