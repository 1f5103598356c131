"""What changes what a run finds and makes: one value, from a command or the form of a flow to the stages."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from stixflow.time import ANCHOR_CLOCK, Clock
from stixflow.tuning import UNTUNED, Tuning, read_tuning

DETECTOR = "snip"
"""How flares are found unless a run is told otherwise: as in the mission's own list, so that lists can be compared."""


class Science(BaseModel):
    """What changes what is found."""

    # Plain values only: it is also what people fill in before they start a flow, and what deployments keep.
    model_config = ConfigDict(frozen=True, extra="forbid")

    detector: str | None = Field(default=None, description="how flares are found: snip or poisson; by default snip")
    methods: tuple[str, ...] = Field(default=(), description="how flares are imaged; by default those of previews")
    clock_kernels: tuple[str, ...] = Field(default=(), description="SPICE clock kernel and leap seconds")
    redate: bool = Field(default=False, description="make cubes anew that another clock dated")
    tuning: str | None = Field(default=None, description="profile (.toml) of measured layouts and batches")

    def finder(self) -> str:
        """Return the method that finds flares, as in `flares.detect`."""
        return self.detector or DETECTOR

    def clock(self) -> Clock:
        """Return what dates cubes: the clock of the kernels, read now, or the table that comes along."""
        if not self.clock_kernels:
            return ANCHOR_CLOCK
        from stixflow.ephemeris import read_clock

        return read_clock(self.clock_kernels)

    def tuned(self) -> Tuning:
        """Return how stores are laid out and jobs are batched: the profile, read now, or as the data model says."""
        return UNTUNED if self.tuning is None else read_tuning(self.tuning)


USUAL = Science()
"""As the mission is processed unless somebody says otherwise."""
