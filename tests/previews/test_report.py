"""The report page: complete, self-contained, readable without its pictures."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from stixflow.previews import Mark, Picture, SkyImage, write_report

VOID = {"meta", "img", "source", "link", "br"}


class Page(HTMLParser):
    """Reads a page: its tags in order, its text, and whatever is not closed properly."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.broken: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.broken.append(tag)

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words += " " + data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def write(tmp_path: Path, **content: Any) -> Page:
    path = write_report(tmp_path / "report.html", title="A <day> & more", **content)
    return Page(path.read_text(encoding="utf-8"))


def full(lightcurve: xr.Dataset, flares: pd.DataFrame, image: SkyImage) -> dict[str, Any]:
    return {
        "subtitle": "simulated",
        "facts": {"flares found": "1 of 2", "packets": 12034},
        "lightcurve": lightcurve,
        "flares": flares,
        "pictures": [Picture([image], [Mark(701, -399, "truth")], "CLEAN of the first flare", 60.0)],
        "comparison": [
            {
                "truth": {"peak": np.datetime64("2022-03-01T01:30:00"), "position": [700.0, -400.0]},
                "found": {"peak": "2022-03-01T01:30:02.017024812", "position": (701.234567, -399.0)},
                "position_error_arcsec": 1.58,
            },
            {"truth": {"peak": np.datetime64("2022-03-01T01:50:00")}, "found": None, "position_error_arcsec": None},
        ],
        "balance": {"packets_in": 12034, "used": 12030, "duplicates": 3, "rejected": 1},
        "seconds": {"ingest": 3.25, "images": 0.0},
        "places": {"archive": "/somewhere/<odd>"},
        "notes": ["Simulated data."],
    }


def test_the_page_is_well_formed_and_needs_nothing_else(
    tmp_path: Path, lightcurve: xr.Dataset, flares: pd.DataFrame, image: SkyImage
) -> None:
    page = write(tmp_path, **full(lightcurve, flares, image))
    assert page.broken == []
    assert page.open == []
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe")
        for name in ("src", "srcset", "href"):
            assert (attributes.get(name) or "data:").startswith("data:")


def test_everything_given_is_on_the_page(
    tmp_path: Path, lightcurve: xr.Dataset, flares: pd.DataFrame, image: SkyImage
) -> None:
    words = write(tmp_path, **full(lightcurve, flares, image)).words
    for text in (
        "A <day> & more",
        "simulated",
        "1 of 2",
        "12,034",
        "2203010130",
        "C2",
        "2022-03-01 01:30:02",
        "701.2, -399.0",
        "1.58",
        "missed",
        "1 of 2 simulated flares were found",
        "The books balance.",
        "3.25",
        "/somewhere/<odd>",
        "Simulated data.",
        "CLEAN of the first flare",
    ):
        assert text in words, text


def test_pictures_can_be_read_without_seeing_them(
    tmp_path: Path, lightcurve: xr.Dataset, flares: pd.DataFrame, image: SkyImage
) -> None:
    page = write(tmp_path, **full(lightcurve, flares, image))
    curve, picture = (attributes["alt"] or "" for attributes in page.all("img"))
    assert "5 energy bands" in curve
    assert "2 flares, peaking at 01:30, 01:37" in curve
    x, y = image.peak_xy()
    assert f"brightest at x {x:.0f}, y {y:.0f} arcsec" in picture
    assert "truth at x 701, y -399 arcsec" in picture


def test_tables_and_language_are_marked_up(
    tmp_path: Path, lightcurve: xr.Dataset, flares: pd.DataFrame, image: SkyImage
) -> None:
    page = write(tmp_path, **full(lightcurve, flares, image))
    assert page.all("html") == [{"lang": "en"}]
    assert all("scope" in attributes for attributes in page.all("th"))
    assert [tag for tag, _ in page.tags if tag in ("h1", "h2")].count("h1") == 1
    scrolled = [attributes for attributes in page.all("div") if attributes.get("class") == "scroll"]
    assert all(attributes.get("tabindex") == "0" for attributes in scrolled)
    assert page.all("source")[0]["media"] == "(prefers-color-scheme: dark)"


def test_books_that_do_not_balance_say_so(tmp_path: Path) -> None:
    words = write(tmp_path, balance={"packets_in": 10, "used": 8, "duplicates": 0, "rejected": 1}).words
    assert "do not balance: 9 packets accounted for" in words


def test_a_page_of_nothing_is_still_a_page(tmp_path: Path) -> None:
    page = write(tmp_path)
    assert page.broken == []
    assert page.all("section") == []
