"""The simulated Sun: where the spacecraft is, and which flares it sees.

Positions are helioprojective, in arcsec, seen from the spacecraft. All values are frozen, so that a scenario is its own
record: the same scenario gives the same telemetry, byte for byte.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from stixflow.ephemeris import Pointing, hpc_to_stix
from stixflow.ephemeris.constants import AU_M, R_SUN_M
from stixflow.errors import UsageError
from stixflow.time import TimeRange, to_utc


@dataclass(frozen=True, slots=True)
class Source:
    """A Gaussian on the Sun: a circle, or an ellipse if `fwhm_minor` is given.

    Parameters
    ----------
    x, y
        Helioprojective position seen from the spacecraft, arcsec.
    fwhm, fwhm_minor
        Full widths at half maximum, arcsec; the minor one defaults to the other.
    position_angle
        Of the major axis, degrees counter-clockwise from +x.
    share
        Of the flux of its kind; the shares of a flare need not add up to one.
    """

    x: float
    y: float
    fwhm: float
    fwhm_minor: float | None = None
    position_angle: float = 0.0
    share: float = 1.0

    @property
    def widths(self) -> tuple[float, float]:
        """Major and minor full width at half maximum, arcsec."""
        return self.fwhm, self.fwhm if self.fwhm_minor is None else self.fwhm_minor


@dataclass(frozen=True, slots=True)
class FlareModel:
    """One flare: when, how bright, which spectrum, where.

    The thermal part rises and decays smoothly; the non-thermal part is a handful of bursts before the thermal peak.

    Parameters
    ----------
    peak
        UTC at the spacecraft.
    goes_flux
        What the operational relation shall give at the peak of the 4-10 keV light curve without noise, W m-2.
    rise_s, decay_s
        Gaussian sigma before the peak and e-folding time after it.
    temperature
        kT of the plasma, keV.
    electron_index, cutoff
        Index delta of the electrons (photons: delta - 1) and the energy (keV) above which the power law holds.
    non_thermal
        Count flux of the bursts at their maximum in 16-28 keV over the thermal peak flux in 4-10 keV.
    thermal_sources, non_thermal_sources
        Shapes; the non-thermal ones default to the thermal ones.
    """

    peak: np.datetime64
    goes_flux: float
    thermal_sources: tuple[Source, ...]
    non_thermal_sources: tuple[Source, ...] = ()
    rise_s: float = 90.0
    decay_s: float = 240.0
    temperature: float = 1.3
    electron_index: float = 5.0
    cutoff: float = 14.0
    non_thermal: float = 0.02

    def __post_init__(self) -> None:
        object.__setattr__(self, "peak", to_utc(self.peak))
        if not self.thermal_sources:
            raise UsageError("a flare without a source", expected="at least one thermal source", advice="add one")
        if not 1e-9 < self.goes_flux < 1e-2:
            raise UsageError(
                f"a GOES flux of {self.goes_flux}", expected="W m-2, as 1e-6 for C1", advice="check the unit"
            )

    @property
    def flare_id(self) -> str:
        """The identifier by the operational rule: minute of the peak, yymmddHHMM."""
        digits = str(self.peak.astype("datetime64[m]")).translate(str.maketrans("", "", "-T:"))
        return digits[2:]

    @property
    def span(self) -> TimeRange:
        """From where the flare stands out of the background to where it has mostly faded: what a request covers."""
        return self._around(3.0, 3.5)

    @property
    def extent(self) -> TimeRange:
        """Outside of this range the flare adds nothing."""
        return self._around(6.0, 14.0)

    def _around(self, rises: float, decays: float) -> TimeRange:
        before, after = math.ceil(rises * self.rise_s), math.ceil(decays * self.decay_s)
        return TimeRange(self.peak - np.timedelta64(before, "s"), self.peak + np.timedelta64(after, "s"))

    def thermal_profile(self, seconds: NDArray[np.float64]) -> NDArray[np.float64]:
        """Thermal emission over its peak, at `seconds` from the peak (any shape)."""
        rise = np.exp(-0.5 * (np.minimum(seconds, 0.0) / self.rise_s) ** 2)
        # A hyperbola in the exponent: round at the top, exponential well after it.
        decay = np.exp(1.0 - np.sqrt(1.0 + (np.maximum(seconds, 0.0) / self.decay_s) ** 2))
        return np.asarray(rise * decay)

    def non_thermal_profile(self, seconds: NDArray[np.float64]) -> NDArray[np.float64]:
        """Non-thermal emission over its maximum, at `seconds` from the thermal peak (any shape)."""
        width = self.rise_s / 5.0
        bursts = ((-1.8, 1.0, 0.6), (-1.2, 0.8, 1.0), (-0.6, 1.0, 0.5))
        parts = [
            height * np.exp(-0.5 * ((seconds - when * self.rise_s) / (wide * width)) ** 2)
            for when, wide, height in bursts
        ]
        return np.asarray(sum(parts))


@dataclass(frozen=True, slots=True)
class Scenario:
    """A stretch of time, the spacecraft in it, and its flares.

    Parameters
    ----------
    span
        UTC at the spacecraft.
    distance_au, hgln_deg, hglt_deg, roll_deg
        Position (Stonyhurst) and roll of the spacecraft.
    pointing_arcsec
        Of the instrument axis in the frame of the spacecraft.
    background
        Quiet background over the mean one.
    """

    span: TimeRange
    flares: tuple[FlareModel, ...] = ()
    distance_au: float = 0.62
    hgln_deg: float = -21.0
    hglt_deg: float = 3.5
    roll_deg: float = 4.0
    pointing_arcsec: tuple[float, float] = (40.0, -25.0)
    background: float = 1.0
    seed: int = 0
    name: str = "scenario"

    def __post_init__(self) -> None:
        object.__setattr__(self, "flares", tuple(sorted(self.flares, key=lambda flare: flare.peak)))
        outside = [flare.flare_id for flare in self.flares if not self.span.covers(np.array([flare.peak]))[0]]
        if outside:
            raise UsageError(
                f"flares {', '.join(outside)} peak outside {self.span}",
                expected="peaks inside the span of the scenario",
                advice="move the flares or the span",
            )

    @property
    def solar_radius_arcsec(self) -> float:
        """Apparent radius of the Sun."""
        return math.degrees(math.asin(R_SUN_M / (self.distance_au * AU_M))) * 3600.0

    @property
    def pointing(self) -> Pointing:
        """Where the instrument points, as the aspect system would tell."""
        return Pointing(*self.pointing_arcsec, self.roll_deg, "sas", 0.0)

    def stix_position(self, source: Source) -> tuple[float, float]:
        """Position of a source in the STIX imaging frame, arcsec."""
        x, y = hpc_to_stix((source.x, source.y), self.pointing)
        return float(x), float(y)

    def stix_angle(self, source: Source) -> float:
        """Position angle of a source in the STIX imaging frame, degrees."""
        return (source.position_angle - 90.0 - self.roll_deg) % 180.0


def demo_scenario(day: date = date(2022, 11, 9), seed: int = 0) -> Scenario:
    """Build a day with six flares from B5 to M1: circle, ellipse, double source, limb flare, weak and strong."""
    base = Scenario(TimeRange.of_day(day))
    radius = base.solar_radius_arcsec
    limb = (0.985 * radius * math.cos(math.radians(160.0)), 0.985 * radius * math.sin(math.radians(160.0)))

    def at(hour: int, minute: int, second: int = 0) -> np.datetime64:
        return base.span.start + np.timedelta64(hour * 3600 + minute * 60 + second, "s")

    flares = (
        FlareModel(at(2, 41, 27), 5.0e-7, (Source(-310.0, 420.0, 26.0),), rise_s=70.0, decay_s=170.0, non_thermal=0.01),
        FlareModel(
            at(6, 18, 33),
            3.0e-6,
            (Source(640.0, -280.0, 44.0, 20.0, 35.0),),
            (Source(624.0, -291.0, 16.0), Source(656.0, -269.0, 16.0, share=0.8)),
            rise_s=80.0,
            decay_s=220.0,
            temperature=1.4,
            non_thermal=0.05,
        ),
        FlareModel(
            at(9, 52, 31),
            2.0e-6,
            (Source(-720.0, -350.0, 20.0), Source(-672.0, -326.0, 22.0, share=0.8)),
            (Source(-722.0, -352.0, 14.0), Source(-670.0, -324.0, 14.0, share=0.9)),
            rise_s=75.0,
            decay_s=200.0,
            non_thermal=0.06,
        ),
        FlareModel(
            at(13, 27, 29),
            1.0e-5,
            (Source(210.0, 530.0, 38.0, 24.0, 120.0),),
            (Source(199.0, 549.0, 13.0), Source(221.0, 511.0, 13.0, share=0.7)),
            rise_s=110.0,
            decay_s=320.0,
            temperature=1.6,
            electron_index=4.5,
            non_thermal=0.05,
        ),
        FlareModel(
            at(17, 9, 24), 1.2e-6, (Source(limb[0], limb[1], 24.0),), rise_s=65.0, decay_s=190.0, non_thermal=0.03
        ),
        FlareModel(
            at(20, 33, 36),
            9.0e-7,
            (Source(980.0, 310.0, 18.0),),
            rise_s=45.0,
            decay_s=120.0,
            temperature=1.2,
            non_thermal=0.02,
        ),
    )
    return Scenario(base.span, flares, seed=seed, name="demo")


def random_scenario(day: date, seed: int = 0, rate: float = 8.0) -> Scenario:
    """Draw a day of flares: `rate` is the mean number, sizes follow a power law of index 1.8 from B3 to X1.

    Peaks keep 20 minutes from each other and from midnight.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,)))
    span = TimeRange.of_day(day)
    geometry = Scenario(
        span,
        distance_au=float(rng.uniform(0.3, 0.98)),
        hgln_deg=float(rng.uniform(-180, 180)),
        hglt_deg=float(rng.uniform(-8, 8)),
        roll_deg=float(rng.uniform(-10, 10)),
        pointing_arcsec=(float(rng.uniform(-60, 60)), float(rng.uniform(-60, 60))),
        background=float(rng.uniform(0.9, 1.15)),
    )
    peaks = _apart(rng, int(rng.poisson(rate)), 1200.0, 86400.0 - 1200.0, 1200.0)
    flares = tuple(_random_flare(rng, span.start, peak, geometry.solar_radius_arcsec) for peak in peaks)
    return Scenario(
        span,
        flares,
        geometry.distance_au,
        geometry.hgln_deg,
        geometry.hglt_deg,
        geometry.roll_deg,
        geometry.pointing_arcsec,
        geometry.background,
        seed,
        "random",
    )


def _apart(rng: np.random.Generator, number: int, low: float, high: float, gap: float) -> Sequence[float]:
    """Draw up to `number` times between `low` and `high`, at least `gap` apart: as many as fit."""
    number = min(number, int((high - low) // gap))
    slack = np.sort(rng.uniform(0.0, (high - low) - gap * number, number))
    return [float(low + slack[i] + gap * i) for i in range(number)]


def _random_flare(rng: np.random.Generator, start: np.datetime64, peak: float, radius: float) -> FlareModel:
    distance, angle = radius * math.sqrt(rng.uniform(0.0, 0.97)), rng.uniform(0.0, 2.0 * math.pi)
    x, y = distance * math.cos(angle), distance * math.sin(angle)
    low, high = 3e-7**-0.8, 1e-4**-0.8
    flux = (low + rng.uniform() * (high - low)) ** (-1 / 0.8)
    width, tilt = rng.uniform(14.0, 40.0), rng.uniform(0.0, 180.0)
    dx, dy = width / 2 * math.cos(math.radians(tilt)), width / 2 * math.sin(math.radians(tilt))
    return FlareModel(
        start + np.timedelta64(round(peak), "s"),
        float(flux),
        (Source(x, y, width, width * rng.uniform(0.5, 1.0), tilt),),
        (Source(x - dx, y - dy, 12.0), Source(x + dx, y + dy, 12.0, share=rng.uniform(0.5, 1.0))),
        rise_s=rng.uniform(40.0, 90.0),
        decay_s=rng.uniform(100.0, 220.0),
        temperature=rng.uniform(1.1, 1.7),
        electron_index=rng.uniform(4.0, 6.5),
        non_thermal=rng.uniform(0.005, 0.08),
    )
