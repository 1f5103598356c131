"""Positions, attitude and clock from SPICE kernels (optional: needs the extra ``spice``)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from threading import RLock
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stixflow.ephemeris.constants import AU_M
from stixflow.ephemeris.orbit import tdb_seconds, times_of
from stixflow.errors import MissingFile, NotFound, UsageError
from stixflow.time import Scet, Utc

FloatArray = NDArray[np.float64]

_SPACECRAFT = -144
_SUN, _VENUS, _EARTH = 10, 299, 399
_KINDS = (".tls", ".tpc", ".tsc", ".tf", ".ti", ".bsp", ".bc")
_MOST_COEFFICIENTS = 1_000_000
_LOCK = RLock()


class Kernels:
    """SPICE kernels, loaded while the object is open.

    >>> with Kernels("kernels/") as kernels:
    ...     place = position("2020-03-01", kernels)

    The kernel pool of SPICE is one for the process: a second open object adds to the first.
    """

    def __init__(self, paths: str | Path | Iterable[str | Path]) -> None:
        """Name kernels: files, or folders all of whose kernels are taken (meta-kernels are not followed).

        Raises
        ------
        MissingFile
            If there is none.
        """
        several = [paths] if isinstance(paths, (str, Path)) else list(paths)
        found = [file for path in map(Path, several) for file in ([path] if path.is_file() else sorted(path.glob("*")))]
        self.files = tuple(file for file in found if file.suffix in _KINDS)
        if not self.files:
            raise MissingFile(
                f"no SPICE kernel in {', '.join(map(str, several))}",
                expected=f"files ending in {', '.join(_KINDS)}",
                advice="give the folder of the kernels",
            )
        self._loaded: list[str] = []

    def __enter__(self) -> Kernels:
        spice = _spiceypy()
        with _LOCK:
            for file in sorted(self.files, key=lambda path: _KINDS.index(path.suffix)):
                spice.furnsh(str(file))
                self._loaded.append(str(file))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _LOCK:
            while self._loaded:
                _spiceypy().unload(self._loaded.pop())

    def orbit(self, time: object) -> FloatArray:
        """Heliocentric position in the J2000 ecliptic, au, (..., 3).

        Near a planet the orbit kernels count from it; the planet is then taken from the formulas of astropy.

        Raises
        ------
        NotFound
            If the kernels do not cover a time.
        """
        times = times_of(time)
        places = [self._place(float(et)) for et in tdb_seconds(times).ravel()]
        return np.array(places).reshape(*times.shape, 3)

    def _place(self, et: float) -> FloatArray:
        problem = ""
        for center in (_SUN, _VENUS, _EARTH):
            try:
                with _LOCK:
                    km, _ = self._spice.spkpos(str(_SPACECRAFT), et, "ECLIPJ2000", "NONE", str(center))
            except _spiceypy().exceptions.SpiceyError as error:
                problem = problem or _short(error)
                continue
            return np.asarray(km) * 1e3 / AU_M + (0.0 if center == _SUN else _planet(center, et))
        raise NotFound(
            problem, expected="a time that the orbit kernels cover", advice="add the orbit kernel of that time"
        )

    def attitude(self, time: object) -> FloatArray:
        """Roll, pitch and yaw of the spacecraft against its frame of Sun and solar north, degrees, (..., 3).

        The frame SOLO_SRF in SOLO_SUN_RTN turned by half a circle about north, so that its first axis points at the Sun
        too: rotations by yaw about the third axis, pitch about the second, roll about the first.

        Raises
        ------
        NotFound
            If the kernels do not cover a time.
        """
        times = times_of(time)
        return np.array([self._turn(float(et)) for et in tdb_seconds(times).ravel()]).reshape(*times.shape, 3)

    def _turn(self, et: float) -> FloatArray:
        matrix = self._ask(
            lambda spice: spice.pxform("SOLO_SRF", "SOLO_SUN_RTN", et), "an attitude kernel of that time"
        )
        facing = np.diag([-1.0, -1.0, 1.0]) @ np.asarray(matrix)
        roll = np.arctan2(facing[2, 1], facing[2, 2])
        pitch = -np.arcsin(np.clip(facing[2, 0], -1.0, 1.0))
        yaw = np.arctan2(facing[1, 0], facing[0, 0])
        return np.rad2deg([roll, pitch, yaw])

    def scet_to_utc(self, scet: ArrayLike) -> Utc:
        """Onboard time (integers ``coarse << 16 | fine``) as UTC by the clock kernel, to the microsecond.

        Raises
        ------
        NotFound
            If no clock kernel is loaded.
        """
        ticks = np.asarray(scet, dtype=np.int64)
        times = [self._moment(int(tick)) for tick in ticks.ravel()]
        return np.array(times, dtype="datetime64[ns]").reshape(ticks.shape)

    def _moment(self, tick: int) -> np.datetime64:
        text = f"1/{tick >> 16}:{tick & 0xFFFF:05d}"
        utc = self._ask(lambda spice: spice.et2utc(spice.scs2e(_SPACECRAFT, text), "ISOC", 6), "a clock kernel (.tsc)")
        return np.datetime64(str(utc), "ns")

    def clock_records(self) -> tuple[Scet, FloatArray]:
        """Onboard time from which each record of the clock kernel holds, and its seconds for each onboard second.

        A leap second begins a record of its own, so that UTC is linear within each.

        Raises
        ------
        NotFound
            If no clock kernel is loaded.
        """
        name = f"SCLK01_COEFFICIENTS_{-_SPACECRAFT}"
        flat = self._ask(lambda spice: spice.gdpool(name, 0, _MOST_COEFFICIENTS), "a clock kernel (.tsc)")
        ticks, _, rates = np.asarray(flat, dtype=np.float64).reshape(-1, 3).T
        starts = np.rint(ticks).astype(np.int64)
        leaps = self._ask(lambda spice: spice.gdpool("DELTET/DELTA_AT", 0, _MOST_COEFFICIENTS), "leap seconds (.tls)")
        days = np.datetime64("2000-01-01T12", "ns") + (np.asarray(leaps)[1::2] * 1e9).astype("timedelta64[ns]")
        jumps = self.utc_to_scet(days[days > np.datetime64("2000-01-01", "ns")])
        every = np.union1d(starts, jumps)
        return every, rates[np.searchsorted(starts, every, side="right") - 1]

    def utc_to_scet(self, utc: object) -> Scet:
        """UTC as the nearest onboard time by the clock kernel: the inverse of `scet_to_utc` to one tick."""
        times = times_of(utc)
        ticks = [self._ticks(str(one)) for one in np.datetime_as_string(times, unit="ns").ravel()]
        return np.rint(np.array(ticks, dtype=np.float64)).astype(np.int64).reshape(times.shape)

    def _ticks(self, utc: str) -> float:
        return float(self._ask(lambda spice: spice.sce2c(_SPACECRAFT, spice.str2et(utc)), "a clock kernel (.tsc)"))

    def _ask(self, question: Callable[[Any], Any], expected: str) -> Any:
        try:
            with _LOCK:
                return question(self._spice)
        except _spiceypy().exceptions.SpiceyError as error:
            raise NotFound(_short(error), expected=expected, advice="add the kernel that covers it") from error

    @property
    def _spice(self) -> Any:
        if not self._loaded:
            raise UsageError("the kernels are not open", advice="with Kernels(...) as kernels: ...")
        return _spiceypy()


def _spiceypy() -> Any:
    try:
        import spiceypy
    except ImportError as error:
        raise UsageError(
            "spiceypy is not installed",
            expected="the extra: pip install stixflow[spice]",
            advice="install it, or use ancillary files or the built-in orbit",
        ) from error
    return spiceypy


def _short(error: Exception) -> str:
    lines = [line for line in str(getattr(error, "long", "") or error).splitlines() if line.strip()]
    return lines[0].strip() if lines else "SPICE gave no answer"


def _planet(center: int, et: float) -> FloatArray:
    import warnings

    from astropy.coordinates import get_body_barycentric
    from astropy.time import Time

    time = Time(2451545.0, et / 86400.0, format="jd", scale="tdb")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # erfa calls years after 2025 dubious
        name = "venus" if center == _VENUS else "earth"
        place = get_body_barycentric(name, time, "builtin") - get_body_barycentric("sun", time, "builtin")
    x, y, z = place.xyz.to_value("au")
    cos, sin = np.cos(np.deg2rad(84381.448 / 3600)), np.sin(np.deg2rad(84381.448 / 3600))
    return np.array([x, cos * y + sin * z, cos * z - sin * y])
