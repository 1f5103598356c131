"""A look into telemetry files for people: choose packets by type and number, list them, print them as trees."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stixflow.errors import UsageError
from stixflow.telemetry.containers import iter_packets
from stixflow.telemetry.decode import decode
from stixflow.telemetry.layouts import known_types, listed_name, type_name
from stixflow.telemetry.packets import Packets, Quarantined
from stixflow.telemetry.telecommands import TcReports, commands_of, read_tc_reports
from stixflow.telemetry.tree import (
    choose_types,
    describe_packets,
    format_headers,
    format_tree,
    is_of_type,
    packet_headers,
)

_TREES_AT_ONCE = 64
_SCIENCE = tuple((21, 6, ssid) for ssid in range(20, 25))


class Inspection:
    """The chosen packets of some files, read batch by batch.

    Parameters
    ----------
    paths
        Telemetry files or folders; for `lines` also telecommand reports.
    types
        Packet types to choose: product names, or types as ``21,6,30``, ``3,25`` or ``239``; none for all.
    index
        Number of the only packet to choose, counted over all packets of the files from zero.
    limit
        Choose no more packets than this.

    Raises
    ------
    UsageError
        If a type is unknown.
    """

    def __init__(
        self, paths: Sequence[Path], *, types: Sequence[str] = (), index: int | None = None, limit: int | None = None
    ) -> None:
        for text in types:
            if not any(is_of_type(packet_type, text) for packet_type in known_types()):
                raise UsageError(f"{text!r} is no packet type", expected="a type as 21,6,30 or 3,25, or a product name")
        self.paths, self.types, self.index, self.limit = list(paths), list(types), index, limit
        self.rejected: list[Quarantined] = []
        """Bytes and packets that could not be used, as far as the files were read."""
        self.duplicates = 0

    def packets(self) -> Iterator[dict[str, Any]]:
        """Yield header and parameters of each chosen packet, as `describe_packets` does."""
        for first, batch, rows in self._chosen():
            for start in range(0, rows.size, _TREES_AT_ONCE):
                piece = rows[start : start + _TREES_AT_ONCE]
                described = describe_packets(batch.select(piece))
                for number, packet in zip((piece + first).tolist(), described, strict=True):
                    packet["header"]["index"] = number
                    yield packet

    def lines(self) -> Iterator[str]:
        """Yield a list of the chosen packets; if types or a number were given, also trees.

        There are as many trees as the limit says, and one without a limit. Telecommand reports come first; to each
        science request that they ask for, the packets of the other files that answer it.
        """
        reports = [path for path in self.paths if _is_tc_report(path)]
        if reports:
            self.paths = [path for path in self.paths if path not in reports]
            answers = _answers(self.paths)
            for path in reports:
                yield from _tc_lines(read_tc_reports(path), answers)
            if not self.paths:
                return
            yield ""
        number, heading = 0, True
        for first, batch, rows in self._chosen():
            headers = packet_headers(batch.select(rows))
            for header, row in zip(headers, (rows + first).tolist(), strict=True):
                header["index"] = row
            yield from itertools.islice(format_headers(headers), 0 if heading else 1, None)
            number, heading = number + len(headers), False
        yield f"{number} packets; {self.duplicates} duplicates, {len(self.rejected)} rejected"
        if self.types or self.index is not None:
            self.rejected.clear()
            for packet in itertools.islice(self.packets(), self.limit or 1):
                yield ""
                yield from format_tree(packet)

    def _chosen(self) -> Iterator[tuple[int, Packets, Any]]:
        """Yield for each batch the number of its first packet, the batch, and the rows chosen of it."""
        first, left = 0, self.limit
        self.duplicates = 0
        for batch in iter_packets(self.paths):
            self.rejected += batch.rejected
            self.duplicates += batch.accounting.duplicates
            rows = np.flatnonzero(choose_types(batch, self.types))
            if self.index is not None:
                rows = rows[rows + first == self.index]
            if left is not None:
                rows = rows[:left]
                left -= rows.size
            if rows.size:
                yield first, batch, rows
            first += len(batch)
            if left == 0 or (self.index is not None and first > self.index):
                return
        if self.index is not None and self.index >= first:
            raise UsageError(f"there is no packet {self.index}", expected=f"0 to {first - 1}", advice="list them first")


def _is_tc_report(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return b"PktTcReport" in file.read(4096)


@dataclass(frozen=True, slots=True)
class _Answer:
    """Packets of one science request."""

    request_id: int
    seq_control: int
    name: str
    packets: int


def _answers(paths: Sequence[Path]) -> list[_Answer]:
    """Count the packets of each science request in telemetry files."""
    counts: Counter[tuple[int, int, str]] = Counter()
    for batch in iter_packets(paths) if paths else ():
        for records in decode(batch, products=[type_name(one) for one in _SCIENCE]).values():
            pairs = np.stack([records["request_id"], records["tc_packet_seq_control"]], axis=1).tolist()
            counts.update((*pair, listed_name(records.type)) for pair in pairs)
    return [_Answer(*key, packets) for key, packets in counts.items()]


def _tc_lines(found: TcReports, answers: Sequence[_Answer]) -> Iterator[str]:
    commands = commands_of(answers, found.reports)
    yield f"{'released':26}  {'executed':26}  {'command':10}  {'type':7}  {'count':>5}  {'state':7}  description"
    table = found.table()
    for row, report in enumerate(found.reports):
        state = "passed" if table["passed"][row] else "failed"
        released, executed = (
            "" if np.isnat(time) else str(time) for time in (report.release_time, report.execution_time)
        )
        kind = f"{report.service},{report.subtype}"
        yield (
            f"{released:26}  {executed:26}  {report.command:10}  {kind:7}  {report.sequence_count:5d}  {state:7}  "
            f"{report.description}"
        )
        request = report.request
        if request is not None:
            yield f"    asks for {request}"
            mine = [one for one, asked in zip(answers, commands, strict=True) if asked is report]
            for one in mine:
                yield f"    answered by {one.packets} packets of {one.name} {one.request_id}-{one.seq_control}"
    yield f"{len(found)} telecommands; {len(found.rejected)} rejected"
