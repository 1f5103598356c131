"""What a release changes against another: partitions, flares and images one by one, and whether it may."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from stixflow.archive import Catalog, Partition, Scope

SAME_FLARE_S = 60.0
"""Peaks nearer than this are those of the same flare."""

_CHANGES = ("same", "changed", "added", "missing", "shrunk", "structure")
_ROWS_SHOWN = 20
_PERCENT = 95.0


@dataclass(frozen=True, slots=True)
class Gates:
    """How much a release may differ before somebody has to accept it."""

    lost_flares: float = 0.0
    """Share of the flares that may be lost."""
    shift_arcsec: float = 5.0
    """How far the peak of 95 of 100 images may move."""
    flux_change: float = 0.2
    """By how much the flux of 95 of 100 images may change, as a share of it."""
    counts_change: float = 0.01
    """By how much the counts of a product may change in sum, as a share of them."""


@dataclass(frozen=True, slots=True)
class Gate:
    """One condition of a release: what was found, what is allowed."""

    name: str
    found: float
    allowed: float
    strict: bool = False
    """Not to be accepted by a reason: it is not finished, or not whole."""

    @property
    def passed(self) -> bool:
        return self.found <= self.allowed


@dataclass(frozen=True, slots=True)
class Unfinished:
    """What keeps a release from being whole: items to do or failed, and stores that are lost."""

    todo: Sequence[str] = ()
    failed: Sequence[str] = ()
    lost: Sequence[str] = ()


@dataclass(slots=True)
class Validation:
    """A release against another, as plain values; `rows` names everything that is not the same."""

    release: str
    against: str
    partitions: dict[str, dict[str, int]] = field(default_factory=dict)
    flares: dict[str, Any] = field(default_factory=dict)
    images: dict[str, Any] = field(default_factory=dict)
    packets: dict[str, int] = field(default_factory=dict)
    gates: list[Gate] = field(default_factory=list)
    accepted: str = ""
    """Why what the gates refuse is wanted; empty where nobody said so."""
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Tell whether readers may be switched to the release."""
        return all(gate.passed or (self.accepted and not gate.strict) for gate in self.gates)

    def summary(self) -> dict[str, Any]:
        """Return everything but the rows."""
        parts = asdict(self)
        parts["gates"] = [asdict(gate) | {"passed": gate.passed} for gate in self.gates]
        del parts["rows"]
        return parts | {"passed": self.passed}

    def as_json(self) -> dict[str, Any]:
        """Return everything."""
        return self.summary() | {"rows": self.rows}


def validate(
    before: Catalog,
    after: Catalog,
    *,
    release: str,
    against: str = "current",
    scope: Scope | None = None,
    unfinished: Unfinished | None = None,
    gates: Gates | None = None,
    accept: str = "",
) -> Validation:
    """Compare what two catalogs show, inside a scope, and say whether the second may take the place of the first.

    Parameters
    ----------
    accept
        Why differences beyond the gates are wanted; it cannot excuse what is unfinished or lost.
    """
    scope, gates = scope or Scope(), gates or Gates()
    found = Validation(release, against, accepted=accept)
    counts = _compare_partitions(before, after, scope, found)
    pairs = _compare_flares(before, after, scope, found)
    _compare_images(before, after, pairs, found, gates)
    found.gates = _gates(found, unfinished or Unfinished(), gates, counts)
    return found


# Partitions -------------------------------------------------------------------------------------------------------


def _compare_partitions(before: Catalog, after: Catalog, scope: Scope, found: Validation) -> dict[str, list[int]]:
    """Fill in what became of each partition; return the counts of each product in what both have, old and new."""
    old, new = (_within(catalog, scope) for catalog in (before, after))
    counts: dict[str, list[int]] = {}
    refused = {"conflicts_before": 0, "conflicts": 0, "duplicates_before": 0, "duplicates": 0}
    for key in sorted(old.keys() | new.keys()):
        one, other = old.get(key), new.get(key)
        change = change_of(one, other)
        found.partitions.setdefault(key[0], dict.fromkeys(_CHANGES, 0))[change] += 1
        if change != "same":
            found.rows.append(
                {"what": "partition", "change": change, "product": key[0], "key": key[1]} | _sides(one, other)
            )
        if one and other:
            total = counts.setdefault(key[0], [0, 0])
            total[0] += one.counts_sum
            total[1] += other.counts_sum
            for name in ("conflicts", "duplicates"):
                refused[f"{name}_before"] += _number(one, name)
                refused[name] += _number(other, name)
    found.packets = refused
    return counts


def _within(catalog: Catalog, scope: Scope) -> dict[tuple[str, str], Partition]:
    found = catalog.partitions()
    return {(item.product, item.key): item for item in found if scope.covers(item.product, item.day)}


def change_of(old: Partition | None, new: Partition | None) -> str:
    """Say what became of a partition: the first that holds of missing, added, same, structure, shrunk, changed."""
    if new is None:
        return "missing"
    if old is None:
        return "added"
    if old.digest == new.digest:
        return "same"
    if old.structure != new.structure and old.data_model_version == new.data_model_version:
        return "structure"
    return "shrunk" if new.n_time < old.n_time and not new.shrink_reason else "changed"


def _sides(old: Partition | None, new: Partition | None) -> dict[str, Any]:
    names = ("n_time", "counts_sum", "code_version", "run_id")
    sides = {"before": old, "after": new}
    return {f"{name}_{side}": getattr(item, name, None) for name in names for side, item in sides.items()}


def _number(partition: Partition, name: str) -> int:
    attrs: Mapping[str, Any] = partition.attrs
    return int(attrs.get(name) or 0)


# Flares -----------------------------------------------------------------------------------------------------------


def _compare_flares(before: Catalog, after: Catalog, scope: Scope, found: Validation) -> dict[str, str]:
    """Fill in what became of each flare; return the new name of each that was found again."""
    old, new = (_flares_of(catalog, scope) for catalog in (before, after))
    pairs = match_flares([row["peak"] for row in old], [row["peak"] for row in new])
    told: Counter[str] = Counter()
    shifts = []
    for first, second in pairs:
        one, other = old[first], new[second]
        moved_s = abs((np.datetime64(other["peak"]) - np.datetime64(one["peak"])) / np.timedelta64(1, "s"))
        shift = _shift(one, other)
        shifts += [] if shift is None else [shift]
        changes = {"moved": moved_s > 0, "class_changed": one.get("goes_class") != other.get("goes_class")}
        told.update(name for name, holds in changes.items() if holds)
        if any(changes.values()):
            note = {"moved_s": moved_s, "shift_arcsec": shift, "class_before": one.get("goes_class")}
            found.rows.append(_flare_note("changed", other) | note | {"class_after": other.get("goes_class")})
    again, known = ({pair[side] for pair in pairs} for side in (0, 1))
    lost = [one for index, one in enumerate(old) if index not in again]
    came = [one for index, one in enumerate(new) if index not in known]
    found.rows += [_flare_note("lost", one) for one in lost] + [_flare_note("new", one) for one in came]
    found.flares = {
        "before": len(old), "after": len(new), "matched": len(pairs), "lost": len(lost), "new": len(came),
        "moved": told["moved"], "class_changed": told["class_changed"], "shift_arcsec": _spread(shifts),
    }  # fmt: skip
    return {str(old[first]["flare_id"]): str(new[second]["flare_id"]) for first, second in pairs}


def _flares_of(catalog: Catalog, scope: Scope) -> list[dict[str, Any]]:
    return [row for row in catalog.flares() if scope.start <= str(row["day"]) < scope.stop]


def match_flares(old: Sequence[Any], new: Sequence[Any]) -> list[tuple[int, int]]:
    """Pair the peaks of two lists in order of time that lie within `SAME_FLARE_S`, the nearest first, each once."""
    one, other = (np.array(peaks, "datetime64[ns]").astype(np.int64) for peaks in (old, new))
    reach = round(SAME_FLARE_S * 1e9)
    first, last = np.searchsorted(other, one - reach), np.searchsorted(other, one + reach, "right")
    near = [(abs(int(one[i] - other[j])), i, j) for i in range(len(one)) for j in range(first[i], last[i])]
    used: tuple[set[int], set[int]] = (set(), set())
    pairs = []
    for _, i, j in sorted(near):
        if i not in used[0] and j not in used[1]:
            used[0].add(i)
            used[1].add(j)
            pairs.append((i, j))
    return sorted(pairs)


def _flare_note(change: str, row: Mapping[str, Any]) -> dict[str, Any]:
    return {"what": "flare", "change": change, "key": str(row["flare_id"]), "peak": str(row["peak"])}


# Images -----------------------------------------------------------------------------------------------------------


def _compare_images(before: Catalog, after: Catalog, pairs: Mapping[str, str], found: Validation, gates: Gates) -> None:
    """Fill in how far images have moved and how their flux has changed; those beyond the gates are named."""
    old, new = (_by_what(catalog.images()) for catalog in (before, after))
    wanted = {(pairs[flare], *rest): row for (flare, *rest), row in old.items() if flare in pairs}
    found_again = set(pairs.values())
    of_flares = {key: row for key, row in new.items() if key[0] in found_again}
    shifts, ratios = [], []
    for key in sorted(wanted.keys() & of_flares.keys()):
        shift, ratio = _shift(wanted[key], of_flares[key]), _flux_ratio(wanted[key], of_flares[key])
        shifts += [] if shift is None else [shift]
        ratios += [] if ratio is None else [ratio]
        if (shift or 0.0) > gates.shift_arcsec or abs((ratio or 1.0) - 1.0) > gates.flux_change:
            note = {"what": "image", "change": "changed", "key": " ".join(map(str, key))}
            found.rows.append(note | {"shift_arcsec": shift, "flux_ratio": ratio})
    missing = sorted(wanted.keys() - of_flares.keys())
    found.rows += [{"what": "image", "change": "missing", "key": " ".join(map(str, key))} for key in missing]
    found.images = {
        "before": len(wanted), "after": len(of_flares), "matched": len(wanted.keys() & of_flares.keys()),
        "missing": len(missing), "shift_arcsec": _spread(shifts),
        "flux_change": _spread([abs(ratio - 1.0) for ratio in ratios]),
    }  # fmt: skip


def _by_what(images: Iterable[Mapping[str, Any]]) -> dict[tuple[Any, ...], Mapping[str, Any]]:
    names = ("flare_id", "method", "energy_low", "energy_high")
    return {tuple(row[name] for name in names): row for row in images if row["flare_id"]}


def _shift(one: Mapping[str, Any], other: Mapping[str, Any]) -> float | None:
    """Return how far apart the brightest sources of two images lie, or two flares, in arcsec; None where unknown."""
    places = [_place(row) for row in (one, other)]
    if any(value is None for place in places for value in place):
        return None
    (x, y), (u, v) = places
    return float(np.hypot(u - x, v - y))


def _place(row: Mapping[str, Any]) -> tuple[Any, Any]:
    sources = row.get("sources") or ()
    if sources:
        return sources[0].get("x"), sources[0].get("y")
    return (
        (row.get("x_hpc"), row.get("y_hpc")) if row.get("x_hpc") is not None else (row.get("x_stix"), row.get("y_stix"))
    )


def _flux_ratio(one: Mapping[str, Any], other: Mapping[str, Any]) -> float | None:
    old, new = one.get("total_flux"), other.get("total_flux")
    return float(new) / float(old) if old and new is not None else None


def _spread(values: Sequence[float]) -> dict[str, float]:
    """Return the median, the value that 95 of 100 stay below, and the greatest."""
    if not values:
        return {"median": 0.0, "p95": 0.0, "max": 0.0}
    low, high = np.percentile(values, [50.0, _PERCENT])
    return {"median": round(float(low), 4), "p95": round(float(high), 4), "max": round(max(values), 4)}


# Gates ------------------------------------------------------------------------------------------------------------


def _gates(
    found: Validation, unfinished: Unfinished, allowed: Gates, counts: Mapping[str, Sequence[int]]
) -> list[Gate]:
    changes = Counter({name: sum(row[name] for row in found.partitions.values()) for name in _CHANGES})
    flares, images, packets = found.flares, found.images, found.packets
    return [
        Gate("items to do", len(unfinished.todo), 0, strict=True),
        Gate("items that failed", len(unfinished.failed), 0),
        Gate("stores that are lost", len(unfinished.lost), 0, strict=True),
        Gate("partitions missing", changes["missing"], 0),
        Gate("partitions shrunk without a reason", changes["shrunk"], 0),
        Gate("partitions of other structure", changes["structure"], 0),
        Gate("packets newly refused", max(0, packets["conflicts"] - packets["conflicts_before"]), 0),
        Gate("change of counts of a product", _greatest_change(counts), allowed.counts_change),
        Gate("share of flares lost", flares["lost"] / max(1, flares["before"]), allowed.lost_flares),
        Gate("images missing of flares found again", images["missing"], 0),
        Gate("shift of images, 95 %, arcsec", images["shift_arcsec"]["p95"], allowed.shift_arcsec),
        Gate("change of flux of images, 95 %", images["flux_change"]["p95"], allowed.flux_change),
    ]


def _greatest_change(counts: Mapping[str, Sequence[int]]) -> float:
    return max((abs(new - old) / old for old, new in counts.values() if old), default=0.0)


# Texts ------------------------------------------------------------------------------------------------------------


def format_validation(payload: Mapping[str, Any]) -> str:
    """Write a validation as text."""
    lines = [f"release {payload['release']} against {payload['against']}", f"{'product':18s}" + _cells(_CHANGES)]
    lines += [f"{name:18s}" + _cells(row.values()) for name, row in payload["partitions"].items()]
    flares, images = payload["flares"], payload["images"]
    lines.append("flares  " + ", ".join(f"{flares[name]} {name.replace('_', ' ')}" for name in _FLARE_WORDS))
    lines.append(f"images  {_images_text(images)}")
    for gate in payload["gates"]:
        word = "ok" if gate["passed"] else "accepted" if payload["accepted"] and not gate["strict"] else "REFUSED"
        lines.append(f"{word:8s} {gate['name']}: {gate['found']:g} (at most {gate['allowed']:g})")
    rows = payload.get("rows", ())
    lines += [_row_text(row) for row in rows[:_ROWS_SHOWN]]
    if len(rows) > _ROWS_SHOWN:
        lines.append(f"and {len(rows) - _ROWS_SHOWN} more (--json lists all)")
    if payload["accepted"]:
        lines.append(f"accepted: {payload['accepted']}")
    return "\n".join([*lines, "passed" if payload["passed"] else "NOT PASSED"])


_FLARE_WORDS = ("matched", "lost", "new", "moved", "class_changed")


def _images_text(images: Mapping[str, Any]) -> str:
    shift, flux = _told(images["shift_arcsec"]), _told(images["flux_change"])
    return f"{images['matched']} matched, {images['missing']} missing; shift {shift} arcsec; flux changed {flux}"


def _cells(values: Iterable[object]) -> str:
    return "".join(f"{value!s:>11s}" for value in values)


def _told(spread: Mapping[str, float]) -> str:
    return f"median {spread['median']:g}, 95 % at most {spread['p95']:g}"


def _row_text(row: Mapping[str, Any]) -> str:
    rest = ", ".join(
        f"{name} {value}" for name, value in row.items() if name not in ("what", "change", "product", "key")
    )
    return f"  {row['change']:9s} {row['what']} {row.get('product', '')} {row['key']}  {rest}".rstrip()


def markdown(payload: Mapping[str, Any]) -> str:
    """Write a validation as a short page of Markdown."""
    verdict = "passed" if payload["passed"] else "not passed"
    lines = [f"# Release {payload['release']} against {payload['against']}: {verdict}", ""]
    if payload["accepted"]:
        lines += [f"Accepted: {payload['accepted']}", ""]
    lines += ["| gate | found | at most | |", "|---|---|---|---|"]
    lines += [
        f"| {gate['name']} | {gate['found']:g} | {gate['allowed']:g} | {'' if gate['passed'] else 'beyond'} |"
        for gate in payload["gates"]
    ]
    lines += ["", f"| product | {' | '.join(_CHANGES)} |", "|---" * (len(_CHANGES) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(map(str, row.values()))} |" for name, row in payload["partitions"].items()]
    flares = payload["flares"]
    lines += ["", "Flares: " + ", ".join(f"{flares[name]} {name.replace('_', ' ')}" for name in _FLARE_WORDS) + "."]
    images = payload["images"]
    lines.append(f"Images: {_images_text(images)}.")
    rows = payload.get("rows", ())
    if rows:
        lines += ["", *(f"- {_row_text(row).strip()}" for row in rows[: 5 * _ROWS_SHOWN])]
    if len(rows) > 5 * _ROWS_SHOWN:
        lines.append(f"- and {len(rows) - 5 * _ROWS_SHOWN} more")
    return "\n".join(lines) + "\n"
