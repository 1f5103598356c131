"""Packets to numbers: framing alone, with decoding, and up to decompressed numbers, engineering values and UTC."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stixflow.bench.days import other_products
from stixflow.bench.measuring import Row, measure
from stixflow.cubes.build.timing import sample_times
from stixflow.telemetry import Packets, Records, decode
from stixflow.telemetry.bin_times import bin_starts
from stixflow.telemetry.ccsds import frame
from stixflow.telemetry.compression import join_count_bytes
from stixflow.telemetry.layouts import layouts
from stixflow.telemetry.structure import Field
from stixflow.time import scet_to_utc


def measure_decode(*, quick: bool = False) -> list[Row]:
    """Time a simulated day of every product but science requests."""
    stream = other_products(date(2022, 6, 15))
    work: dict[str, Callable[[], object]] = {
        "framing": lambda: frame(stream),
        "decoding": lambda: decode_all(stream, len),
        "all": lambda: decode_all(stream, numbers),
    }
    repetitions = 2 if quick else 7
    rows: list[Row] = []
    for what, call in work.items():
        row = {"what": what, "bytes": len(stream), **measure(call, repetitions=repetitions)}
        rows.append(row | {"MB/s": len(stream) / 1e6 / row["cpu"]["min"]})
    return rows


def decode_all(stream: bytes, use: Callable[[Records], int]) -> int:
    """Frame and decode packets of all types, batch by batch; sum what `use` makes of the records."""
    total = 0
    for batch in Packets.from_bytes(stream).batches():
        decoded = decode(batch, products=set(np.unique(batch.product()).tolist()))
        assert not decoded.rejected
        total += sum(use(records) for records in decoded.values())
    return total


def numbers(records: Records) -> int:
    """Decompress, calibrate and date everything; return how many numbers came out."""
    columns: list[NDArray[Any]] = [scet_to_utc(_starts(records))]
    if "count_byte" in records:
        columns.append(join_count_bytes(records["num_count_bytes"], records["count_byte"]))
    for one in _fields(records):
        if one.scheme:
            columns.append(records.values(one.name))
        elif one.curve:
            columns.append(records.engineering(one.name))
    return sum(column.size for column in columns)


def _fields(records: Records) -> list[Field]:
    found = {
        one.name: one
        for index in np.unique(records.layout).tolist()
        for _, scope in layouts()[index].levels.values()
        for one in scope.fields
    }
    return list(found.values())


def _starts(records: Records) -> NDArray[np.int64]:
    if records.type == (21, 6, 30):
        return sample_times(records).start
    if records.type[:2] == (21, 6) and records.type[2] in (20, 21, 22, 23, 24):
        return bin_starts(records)
    return records.scet
