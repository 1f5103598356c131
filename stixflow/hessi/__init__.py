"""The HESSI catalog: observing summaries and flare lists, of RHESSI and made from STIX data."""

from stixflow.hessi.catalog import read_catalog, write_catalog
from stixflow.hessi.figure import rate_figure
from stixflow.hessi.finder import find_flares
from stixflow.hessi.flare_list import FlareList, make_flare_list, parse_ascii, read_flare_list
from stixflow.hessi.rates import (
    ccsds,
    compress_rates,
    decompress_rates,
    rate_table,
    ut_of_utc,
    utc_of_ut,
)
from stixflow.hessi.stix import summary_from_lightcurve
from stixflow.hessi.summary import (
    MISSING,
    ObservingSummary,
    join_summaries,
    make_summary,
    modulation_probability,
    modulation_variance,
    read_summary,
)
from stixflow.hessi.tables import Part, Table

__all__ = [
    "MISSING",
    "FlareList",
    "ObservingSummary",
    "Part",
    "Table",
    "ccsds",
    "compress_rates",
    "decompress_rates",
    "find_flares",
    "join_summaries",
    "make_flare_list",
    "make_summary",
    "modulation_probability",
    "modulation_variance",
    "parse_ascii",
    "rate_figure",
    "rate_table",
    "read_catalog",
    "read_flare_list",
    "read_summary",
    "summary_from_lightcurve",
    "ut_of_utc",
    "utc_of_ut",
    "write_catalog",
]
