"""Daily catalog files: the observing summary and the flare list of a day in one file."""

from __future__ import annotations

from pathlib import Path

from stixflow.errors import InputFileError
from stixflow.hessi.flare_list import FlareList, read_flare_list
from stixflow.hessi.summary import MISSING, ObservingSummary, read_summary
from stixflow.hessi.tables import write_tables


def write_catalog(path: str | Path, summary: ObservingSummary, flares: FlareList) -> None:
    """Write a catalog file, as ``hessi_catalog_20110404.fits``: the tables of the summary, then those of the list.

    Raises
    ------
    InputFileError
        If one of the two is empty.
    """
    info = summary.get("info")
    if info == MISSING or flares.part is None:
        raise InputFileError("a summary or a flare list without data", expected="both", advice="getdata first")
    tables = [*summary.tables(), *flares.tables()]
    keywords = {"DATE_OBS": info["summary_start_time"], "DATE_END": info["summary_end_time"]}
    write_tables(path, tables, {"TELESCOP": "HESSI", "OBJECT": "Sun", "ORIGIN": "stixflow", **keywords})


def read_catalog(path: str | Path) -> tuple[ObservingSummary, FlareList]:
    """Read both parts of a catalog file.

    Raises
    ------
    MissingFile, InputFileError
        If there is no file, or one of the two is not in it.
    """
    flares = read_flare_list(path)
    summary = read_summary(path)
    summary.head = tuple(table for table in summary.head if "FLARE" not in table.name)
    return summary, flares
