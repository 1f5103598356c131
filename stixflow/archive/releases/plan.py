"""What a candidate is to be: its scope, and what makes it; kept with the release, so that all who build it agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from stixflow.archive.values import from_json, to_json
from stixflow.cubes.model import PRODUCTS
from stixflow.errors import UsageError

REBUILT = (*PRODUCTS, "flares", "images")
"""What a candidate may rebuild: products, and what is found in them."""

_FIRST, _LAST = "0000-00-00", "9999-99-99"
"""Before and after every day."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What a candidate rebuilds: some products on the days of ``[start, stop)``; all that there is by default."""

    start: str = _FIRST
    stop: str = _LAST
    products: tuple[str, ...] = REBUILT

    def __post_init__(self) -> None:
        unknown = sorted(set(self.products) - set(REBUILT))
        if unknown:
            raise UsageError(
                f"{', '.join(unknown)} cannot be rebuilt", expected=", ".join(REBUILT), advice="correct it"
            )
        if not self.start < self.stop:
            raise UsageError(f"no day lies in {self.start} to {self.stop}", expected="start before stop")

    @property
    def is_whole(self) -> bool:
        """Tell whether every day is in it."""
        return (self.start, self.stop) == (_FIRST, _LAST)

    def covers(self, product: str, day: str | date) -> bool:
        """Tell whether a product (or ``flares``, ``images``) of a day is rebuilt."""
        return product in self.products and self.start <= str(day) < self.stop

    def __str__(self) -> str:
        days = "every day" if self.is_whole else f"{self.start} to {self.stop}".replace(_FIRST, "").replace(_LAST, "")
        return days if self.products == REBUILT else f"{days}: {', '.join(self.products)}"


@dataclass(frozen=True, slots=True)
class CandidatePlan:
    """What an open release is to be, kept with it, so that whoever goes on makes the same."""

    scope: Scope
    made_by: Mapping[str, str]
    """Code, clock and detector that everything in it is made by."""
    packets_upto: int = 0
    """Number of the last packet set that it has looked at."""
    shown_before: str = ""
    """The release that was shown when readers were switched to this one; empty if there was none."""


def read_plan(row: Mapping[str, Any]) -> CandidatePlan:
    """Return the plan that a row of the table `release` keeps."""
    kept = from_json(row["plan"])
    scope = kept.get("scope", {})
    products = tuple(scope.get("products", REBUILT))
    return CandidatePlan(
        Scope(scope.get("start", _FIRST), scope.get("stop", _LAST), products),
        dict(kept.get("made_by", {})),
        int(kept.get("packets_upto", 0)),
        str(kept.get("shown_before", "")),
    )


def plan_text(plan: CandidatePlan) -> str:
    """Return a plan as the table `release` keeps it."""
    return to_json(asdict(plan))
