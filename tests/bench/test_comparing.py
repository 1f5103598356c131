"""Two measurements side by side: change, noise and what is merely counted are told apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stixflow.bench import compare, format_comparison, read_document
from stixflow.bench.measuring import Spread, document, format_document, measure
from stixflow.errors import InputFileError, MissingFile


def made(seconds: float, *, spread: float = 0.0, requests: int = 5, load: float = 0.5) -> dict[str, Any]:
    clock = {"min": seconds, "median": seconds, "spread": spread}
    row = {"what": "read", "repetitions": 4, "cpu": clock, "requests": requests}
    return {
        "format": 1,
        "machine": {"cores": 2, "model": "A"},
        "load": {"start": load, "end": load},
        "parts": {"queries": [row]},
    }


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        (made(1.0), made(1.04), "same"),
        (made(1.0), made(1.2), "slower"),
        (made(1.2), made(1.0), "faster"),
        (made(1.0, spread=0.3), made(1.2, spread=0.3), "same"),
        (made(1.0, spread=0.02), made(1.2, spread=0.02), "slower"),
    ],
)
def test_a_change_within_the_noise_is_none(before: dict[str, Any], after: dict[str, Any], verdict: str) -> None:
    rows = {row["number"]: row for row in compare(before, after)["rows"]}
    assert rows["cpu"]["verdict"] == verdict
    assert rows["requests"]["verdict"] == "same"


def test_what_is_counted_has_no_noise() -> None:
    found = compare(made(1.0), made(1.0, requests=6))
    assert [row["verdict"] for row in found["rows"]] == ["same", "changed"]
    assert format_comparison(found).startswith("changed")


def test_what_makes_a_comparison_doubtful_is_told() -> None:
    other = made(1.0, load=7.0)
    other["machine"]["model"] = "B"
    other["parts"]["decode"] = [{"what": "framing"}]
    found = compare(made(1.0), other)
    text = format_comparison(found)
    assert "model differs" in text
    assert "more processes than cores" in text
    assert "only in one of them: decode framing" in text


def test_a_document_is_written_and_read(tmp_path: Path) -> None:
    found = document("stixflow bench", {"part": lambda: [{"what": "nothing", **measure(lambda: None, repetitions=3)}]})
    path = tmp_path / "found.json"
    path.write_text(json.dumps(found))
    again = read_document(path)
    assert compare(again, again)["rows"]
    assert {"cores", "model", "memory_gb"} <= set(again["machine"])
    assert "nothing" in format_document(again)
    path.write_text("{}")
    with pytest.raises(InputFileError, match="not a file of"):
        read_document(path)
    with pytest.raises(MissingFile):
        read_document(tmp_path / "none.json")


def test_one_disturbed_repetition_does_not_count() -> None:
    assert Spread.of([1.0, 1.0, 1.0, 9.0, 1.0]) == Spread(1.0, 1.0, 0.0)
