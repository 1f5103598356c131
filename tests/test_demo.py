"""The demonstration: everything simulated is found again, where, when and as bright as it was put in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stixflow import demo
from stixflow.demo import format_result, run_demo
from stixflow.errors import UsageError

_CLASSES = "ABCMX"


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run_demo(tmp_path_factory.mktemp("demo") / "new", serial=True)


def _flux(goes_class: str) -> float:
    return 10.0 ** (_CLASSES.index(goes_class[0]) - 8) * float(goes_class[1:])


def test_all_is_well(result: dict[str, Any]) -> None:
    assert result["passed"]
    assert result["failed"] == []
    books = result["balance"]
    assert books["packets_in"] == books["used"] > 0
    assert books["duplicates"] == books["rejected"] == 0


def test_the_keys_are_those_that_others_read(result: dict[str, Any]) -> None:
    assert set(result) >= {"flares", "balance", "seconds", "archive", "report"}
    assert set(result["balance"]) == {"packets_in", "used", "duplicates", "rejected"}
    assert all(set(flare) == {"truth", "found", "position_error_arcsec"} for flare in result["flares"])
    assert {"simulate", "ingest", "cubes", "flares", "images", "report", "total"} <= set(result["seconds"])
    json.dumps(result, allow_nan=False)


def test_at_least_five_flares_a_double_source_among_them(result: dict[str, Any]) -> None:
    assert len(result["flares"]) >= 5
    assert [flare["truth"]["sources"] for flare in result["flares"]].count(2) >= 1


def test_nothing_is_found_that_was_not_put_in(result: dict[str, Any]) -> None:
    import stixflow

    found = stixflow.open_archive(result["archive"]).flares()
    assert list(found["flare_id"]) == [flare["found"]["flare_id"] for flare in result["flares"]]


def test_every_flare_is_found_when_it_was(result: dict[str, Any]) -> None:
    """Quick-look counts are so coarse that the top of a flare is flat for a minute or two."""
    for flare in result["flares"]:
        apart = np.datetime64(flare["found"]["peak"]) - np.datetime64(flare["truth"]["peak"])
        assert abs(apart) <= np.timedelta64(60, "s"), flare


def test_positions(result: dict[str, Any]) -> None:
    for flare in result["flares"]:
        assert flare["position_error_arcsec"] < 5.0, flare
        assert not flare["found"]["ambiguous"]


def test_goes_classes(result: dict[str, Any]) -> None:
    """Equal, or apart by what counting noise and one significant digit make of it."""
    for flare in result["flares"]:
        truth, found = (_flux(flare[side]["goes_class"]) for side in ("truth", "found"))
        assert abs(found - truth) <= 1.01 * 10.0 ** np.floor(np.log10(truth)), flare


def test_counts_and_flux(result: dict[str, Any]) -> None:
    for flare in result["flares"]:
        truth, found = flare["truth"], flare["found"]
        assert found["peak_counts"] == pytest.approx(truth["peak_counts"], rel=0.1), flare
        assert found["flux_4_10"] == pytest.approx(truth["flux_4_10"], rel=0.1), flare


def test_what_is_written(result: dict[str, Any]) -> None:
    import sunpy.map

    assert len(result["maps"]) >= 2 * len(result["flares"])
    assert all(Path(path).is_file() for path in result["maps"])
    assert sunpy.map.Map(result["maps"][0]).observer_coordinate.radius.to_value("AU") == pytest.approx(0.62, rel=1e-4)
    page = Path(result["report"]).read_text(encoding="utf-8")
    assert all(flare["found"]["flare_id"] in page for flare in result["flares"])
    told = format_result(result)
    assert all(flare["truth"]["flare_id"] in told for flare in result["flares"])
    assert result["archive"] in told


def test_the_same_seed_gives_the_same_result_in_place_of_the_old(result: dict[str, Any]) -> None:
    again = run_demo(Path(result["archive"]).parent, serial=True)
    assert again["balance"] == result["balance"]
    assert again["flares"] == result["flares"]
    assert len(again["maps"]) == len(result["maps"])


def test_it_never_removes_what_it_did_not_make(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="no demo made"):
        run_demo(tmp_path, serial=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_flare_that_is_missed_fails_the_demo(result: dict[str, Any]) -> None:
    missed = dict(result["flares"][0], found=None, position_error_arcsec=None)
    assert not demo._passed(result | {"flares": [missed, *result["flares"][1:]]})
    assert "NOT FOUND" in format_result(result | {"flares": [missed]})


@pytest.mark.parametrize("wrong", [{"used": 1}, {"rejected": 3}])
def test_books_that_do_not_balance_fail_the_demo(result: dict[str, Any], wrong: dict[str, int]) -> None:
    assert not demo._passed(result | {"balance": result["balance"] | wrong})
