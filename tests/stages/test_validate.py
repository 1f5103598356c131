"""Which differences between two releases are told, and which of them stop a switch."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stixflow.archive import Partition, Scope
from stixflow.stages.validate import (
    SAME_FLARE_S,
    Gates,
    Unfinished,
    Validation,
    change_of,
    format_validation,
    markdown,
    match_flares,
    validate,
)

START = np.datetime64("2022-06-15", "ns")
DAY = Partition(
    run_id="R1", product="ql_lightcurve", key="2022-06-15", day=date(2022, 6, 15), path="a", digest="d",
    input_digest="i", code_version="1", n_time=100, boxes=1, counts_sum=1000, n_bytes=1, start=START, stop=START + 1,
    structure="s", attrs={"conflicts": 0, "duplicates": 2},
)  # fmt: skip
FLARE = {"flare_id": "a", "day": "2022-06-15", "peak": START + np.timedelta64(3600, "s"), "goes_class": "C1"}
IMAGE = {"flare_id": "a", "method": "bp", "energy_low": 4.0, "energy_high": 10.0, "total_flux": 10.0}
IMAGE |= {"sources": [{"x": 100.0, "y": -50.0}]}


def catalog(
    partitions: list[Partition] | None = None, flares: list[Any] | None = None, images: list[Any] | None = None
) -> Any:
    """Stand for a catalog that shows these; by default one day with a flare and an image."""
    shown = {"partitions": partitions, "flares": flares, "images": images}
    default = {"partitions": [DAY], "flares": [FLARE], "images": [IMAGE]}
    return SimpleNamespace(
        **{name: lambda rows=rows, name=name: default[name] if rows is None else rows for name, rows in shown.items()}
    )


def against(after: Any, before: Any = None, **more: Any) -> Validation:
    return validate(before or catalog(), after, release="new", **more)


def refused(found: Validation) -> list[str]:
    return [gate.name for gate in found.gates if not gate.passed]


def test_the_same_passes() -> None:
    found = against(catalog())
    assert found.passed
    assert found.rows == []
    assert found.partitions["ql_lightcurve"]["same"] == 1
    assert (found.flares["matched"], found.images["matched"]) == (1, 1)


def days(**changes: Any) -> Any:
    return catalog([replace(DAY, digest="e", **changes)])


REFUSED = [
    (catalog([]), "partitions missing"),
    (days(n_time=99), "partitions shrunk without a reason"),
    (days(structure="other"), "partitions of other structure"),
    (days(counts_sum=1020), "change of counts of a product"),
    (days(attrs={"conflicts": 1}), "packets newly refused"),
    (catalog(flares=[], images=[]), "share of flares lost"),
    (catalog(images=[]), "images missing of flares found again"),
    (catalog(images=[IMAGE | {"sources": [{"x": 106.0, "y": -50.0}]}]), "shift of images, 95 %, arcsec"),
    (catalog(images=[IMAGE | {"total_flux": 12.5}]), "change of flux of images, 95 %"),
]


@pytest.mark.parametrize(("after", "gate"), REFUSED)
def test_each_gate_fires_and_can_be_accepted(after: Any, gate: str) -> None:
    found = against(after)
    assert refused(found) == [gate]
    assert not found.passed
    assert against(after, accept="as wanted").passed


ALLOWED = [
    days(counts_sum=1005),
    days(n_time=99, shrink_reason="packets withdrawn"),
    days(structure="other", data_model_version=DAY.data_model_version + 1),
    catalog([DAY, replace(DAY, key="2022-06-16")]),
    catalog(flares=[FLARE, FLARE | {"flare_id": "b", "peak": FLARE["peak"] + np.timedelta64(3600, "s")}]),
    catalog(images=[IMAGE | {"sources": [{"x": 103.0, "y": -54.0}]}]),
]


@pytest.mark.parametrize("after", ALLOWED)
def test_what_is_told_but_stops_nothing(after: Any) -> None:
    found = against(after)
    assert found.passed
    text = format_validation(found.as_json())
    assert text.endswith("passed")
    assert "REFUSED" not in text


@pytest.mark.parametrize(
    ("unfinished", "gate", "acceptable"),
    [
        (Unfinished(todo=["cubes a"]), "items to do", False),
        (Unfinished(lost=["a.zarr"]), "stores that are lost", False),
        (Unfinished(failed=["cubes a"]), "items that failed", True),
    ],
)
def test_what_is_unfinished(unfinished: Unfinished, gate: str, acceptable: bool) -> None:
    assert refused(against(catalog(), unfinished=unfinished)) == [gate]
    assert against(catalog(), unfinished=unfinished, accept="why").passed == acceptable


def test_images_beyond_the_gates_are_named() -> None:
    (row,) = against(catalog(images=[IMAGE | {"total_flux": 12.5}])).rows
    assert (row["what"], row["key"], row["flux_ratio"], row["shift_arcsec"]) == ("image", "a bp 4.0 10.0", 1.25, 0.0)


def test_gates_may_be_wider() -> None:
    wide = Gates(lost_flares=1.0, shift_arcsec=10.0, flux_change=0.5, counts_change=0.5)
    assert against(catalog(flares=[], images=[]), gates=wide).passed
    assert against(catalog(images=[IMAGE | {"total_flux": 12.5}]), gates=wide).passed


def test_what_lies_outside_the_scope_is_not_asked_for() -> None:
    assert against(catalog([], flares=[], images=[]), scope=Scope(start="2022-06-16")).passed


def test_a_flare_that_moves_keeps_its_images() -> None:
    moved = FLARE | {"flare_id": "b", "peak": FLARE["peak"] + np.timedelta64(8, "s"), "goes_class": "C2"}
    found = against(catalog(flares=[moved], images=[IMAGE | {"flare_id": "b"}]))
    assert found.passed
    assert (found.flares["moved"], found.flares["class_changed"], found.images["matched"]) == (1, 1, 1)
    (row,) = found.rows
    assert (row["moved_s"], row["class_before"], row["class_after"]) == (8.0, "C1", "C2")


def test_the_page_names_every_gate_and_difference() -> None:
    found = against(catalog([]), accept="no longer wanted")
    page = markdown(found.as_json())
    assert page.startswith("# Release new against current: passed")
    assert "no longer wanted" in page
    assert all(gate.name in page for gate in found.gates)
    assert "missing   partition ql_lightcurve 2022-06-15" in page


def test_what_became_of_a_partition() -> None:
    assert [change_of(None, DAY), change_of(DAY, None), change_of(DAY, replace(DAY, run_id="R2"))] == [
        "added", "missing", "same",
    ]  # fmt: skip


_PEAKS = st.lists(st.integers(0, 2000), max_size=12).map(
    lambda seconds: [START + np.timedelta64(one, "s") for one in sorted(seconds)]
)


@given(old=_PEAKS, new=_PEAKS)
def test_each_flare_is_matched_once_and_nearby(old: list[Any], new: list[Any]) -> None:
    pairs = match_flares(old, new)
    assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)
    assert all(abs((old[i] - new[j]) / np.timedelta64(1, "s")) <= SAME_FLARE_S for i, j in pairs)
    left = [[peak for n, peak in enumerate(peaks) if n not in used] for peaks, used in _unmatched(old, new, pairs)]
    assert not any(abs((one - other) / np.timedelta64(1, "s")) <= SAME_FLARE_S for one in left[0] for other in left[1])
    assert match_flares(old, old) == [(n, n) for n in range(len(old))]


def _unmatched(old: list[Any], new: list[Any], pairs: list[tuple[int, int]]) -> list[tuple[list[Any], set[int]]]:
    return [(old, {i for i, _ in pairs}), (new, {j for _, j in pairs})]
