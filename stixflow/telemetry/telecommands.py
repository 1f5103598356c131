"""Telecommand reports (`PktTcReport.xml`): which commands were sent, and which of them asked for which science data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from stixflow.errors import InputFileError, MissingFile
from stixflow.telemetry.packets import Quarantined

REQUEST = "AIXF417A"
"""Name of the command that asks for science data."""

_REPORT = re.compile(
    rb"<(?:[\w.-]+:)?PktTcReportListElement(?:\s[^>]*)?>(.*?)"
    rb"(?:</(?:[\w.-]+:)?PktTcReportListElement\s*>|(?=<(?:[\w.-]+:)?PktTcReportListElement[\s>])|\Z)",
    re.DOTALL,
)
_ALONE = 3 << 14


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a telecommand."""

    name: str
    description: str
    value: str
    unit: str = ""

    @property
    def number(self) -> int | None:
        """The value as a number, decimal or with ``0x``; None if it is text."""
        try:
            return int(self.value, 0)
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class RequestParameters:
    """What command AIXF417A asks for."""

    request_id: int
    level: int
    start: int
    """Onboard time, ``coarse << 16 | fine``."""
    detector_mask: int
    tmin: int
    tmax: int
    """Time range in units of 0.1 s from the start."""
    time_unit: int
    """Length of a bin in units of 0.1 s."""
    emin: int
    emax: int
    energy_unit: int
    """Channels of an energy bin, less one."""


@dataclass(frozen=True, slots=True)
class TcReport:
    """One telecommand and what became of it."""

    command: str
    description: str
    sequence: str
    service: int
    subtype: int
    apid: int
    sequence_count: int
    release_time: np.datetime64
    execution_time: np.datetime64
    states: dict[str, str]
    """State of release, ground, uplink, board, execution, by the name of the report's field."""
    parameters: tuple[Parameter, ...]
    body: bytes = field(repr=False)
    """The command packet, headers and checksum included; empty if the report does not give it."""

    @property
    def seq_control(self) -> int:
        """Sequence flags and count, as telemetry repeats them (`tc_packet_seq_control`)."""
        return _ALONE | self.sequence_count

    @property
    def request(self) -> RequestParameters | None:
        """What was asked for, if this is a science request with all its parameters."""
        if REQUEST not in (self.command, self.sequence):
            return None
        numbers = [parameter.number for parameter in self.parameters[:11]]
        if len(numbers) < 11 or None in numbers:
            return None
        uid, level, coarse, fine, *rest = (int(number) for number in numbers if number is not None)
        return RequestParameters(uid, level, coarse << 16 | fine, *rest)


@dataclass(frozen=True, slots=True)
class TcReports:
    """The telecommands of one file, in its order, and what could not be read."""

    reports: tuple[TcReport, ...]
    rejected: tuple[Quarantined, ...] = ()

    def __len__(self) -> int:
        return len(self.reports)

    def table(self) -> dict[str, NDArray[Any]]:
        """List the commands in columns; times are UTC, -1 stands for no request."""
        requests = [report.request for report in self.reports]
        return {
            "command": np.array([report.command for report in self.reports], dtype=np.str_),
            "description": np.array([report.description for report in self.reports], dtype=np.str_),
            "service": np.array([report.service for report in self.reports], dtype=np.int64),
            "subtype": np.array([report.subtype for report in self.reports], dtype=np.int64),
            "sequence_count": np.array([report.sequence_count for report in self.reports], dtype=np.int64),
            "release_time": np.array([report.release_time for report in self.reports], dtype="datetime64[us]"),
            "execution_time": np.array([report.execution_time for report in self.reports], dtype="datetime64[us]"),
            "passed": np.array([_has_passed(report) for report in self.reports], dtype=np.bool_),
            "parameters": np.array([len(report.parameters) for report in self.reports], dtype=np.int64),
            "request_id": np.array([one.request_id if one else -1 for one in requests], dtype=np.int64),
        }


def _has_passed(report: TcReport) -> bool:
    return "FAILED" not in report.states.values() and report.states.get("OnBoardState", "PASSED") == "PASSED"


def read_tc_reports(path: str | Path) -> TcReports:
    """Read a telecommand report; elements that are damaged are set apart with the reason.

    Raises
    ------
    MissingFile
        If there is no such file.
    InputFileError
        If the file is no telecommand report.
    """
    source = Path(path)
    if not source.is_file():
        raise MissingFile(f"{source} does not exist", expected="a PktTcReport XML file", advice="correct the path")
    data = source.read_bytes()
    if b"PktTcReport" not in data:
        raise InputFileError(
            f"{source} is no telecommand report", expected="XML with PktTcReportList", advice="leave it out"
        )
    reports: list[TcReport] = []
    rejected: list[Quarantined] = []
    for match in _REPORT.finditer(data):
        try:
            reports.append(_report(match.group(1)))
        except (ElementTree.ParseError, ValueError) as error:
            reason = f"element {len(reports) + len(rejected) + 1}: {error}"
            rejected.append(Quarantined(reason, str(source), match.start(), match.group(), "a telecommand report"))
    return TcReports(tuple(reports), tuple(rejected))


def _report(text: bytes) -> TcReport:
    element = ElementTree.fromstring(b"<report>" + text + b"</report>")
    values = {child.tag.rpartition("}")[2]: (child.text or "").strip() for child in element if not len(child)}
    return TcReport(
        values["CommandName"] if values.get("CommandName") else _refuse("no command name"),
        values.get("Description", ""),
        values.get("SequenceName", ""),
        int(values.get("PUSServiceType") or 0),
        int(values.get("PUSSubServiceType") or 0),
        int(values.get("Apid") or 0),
        int(values.get("SSC") or 0),
        _time(values.get("ReleaseTime", "")),
        _time(values.get("ExecutionTime", "")),
        {name: value for name, value in values.items() if name.endswith("State")},
        tuple(_parameters(element)),
        bytes.fromhex(values.get("RawBodyData", "")),
    )


def _refuse(reason: str) -> str:
    raise ValueError(reason)


def _time(text: str) -> np.datetime64:
    """Read a time; commands that never got so far have the year 1970 or none."""
    time = np.datetime64(text.removesuffix("Z") or "NaT", "us")
    return time if time > np.datetime64("1971-01-01") else np.datetime64("NaT", "us")


def _parameters(element: ElementTree.Element) -> Iterator[Parameter]:
    for one in element.iter():
        if one.tag.endswith("PktTcReportParameterListElement"):
            texts = {child.tag.rpartition("}")[2]: (child.text or "").strip() for child in one}
            yield Parameter(
                texts.get("ParameterName", ""),
                texts.get("ParameterDescription", ""),
                texts.get("ParamValue", ""),
                texts.get("ParameterUnit", ""),
            )


class HasRequest(Protocol):
    """What carries the two numbers of a science request."""

    @property
    def request_id(self) -> int: ...
    @property
    def seq_control(self) -> int: ...


def commands_of(requests: Iterable[HasRequest], reports: Iterable[TcReport]) -> list[TcReport | None]:
    """Find for each science request the command that asked for it, by its identifier, else by the command's count.

    Parameters
    ----------
    requests
        As from `regroup`.
    reports
        Commands of any kind; a later one of the same identifier replaces an earlier one.
    """
    asked = [report for report in reports if report.request is not None]
    by_id = {report.request.request_id: report for report in asked if report.request}
    by_count = {report.seq_control: report for report in asked}
    return [by_id.get(one.request_id) or by_count.get(one.seq_control) for one in requests]
