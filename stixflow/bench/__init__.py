"""Measuring: what each part costs on this machine, and the settings that follow from it."""

from stixflow.bench.comparing import compare, format_comparison, read_document
from stixflow.bench.decode import measure_decode
from stixflow.bench.end_to_end import measure_end_to_end, measure_queries
from stixflow.bench.fanout import derive, measure_fanout
from stixflow.bench.imaging import measure_imaging
from stixflow.bench.layout import choose, merge_tunings, plain, sweep_layouts
from stixflow.bench.measuring import document, format_document, measure

__all__ = [
    "choose",
    "compare",
    "derive",
    "document",
    "format_comparison",
    "format_document",
    "measure",
    "measure_decode",
    "measure_end_to_end",
    "measure_fanout",
    "measure_imaging",
    "measure_queries",
    "merge_tunings",
    "plain",
    "read_document",
    "sweep_layouts",
]
