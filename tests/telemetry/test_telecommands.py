from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from example_records import pixels

from stixflow.errors import InputFileError, MissingFile
from stixflow.telemetry import encode, read_tc_reports
from stixflow.telemetry.inspect import Inspection
from stixflow.telemetry.telecommands import RequestParameters, commands_of

VALUES = (2211090042, 1, 720000000, 32768, 0xFFFFFFFF, 0, 600, 10, 0, 17, 0)


def _element(command: str, values: tuple[object, ...], *, count: int = 77, body: str = "", sequence: str = "") -> str:
    parameters = "".join(
        f"<PktTcReportParameterListElement><ParameterName>PIX{n:05d}</ParameterName>"
        f"<ParameterDescription>p{n}</ParameterDescription><ParameterUnit></ParameterUnit>"
        f"<ParamValue>{value}</ParamValue></PktTcReportParameterListElement>"
        for n, value in enumerate(values)
    )
    return (
        f"<PktTcReportListElement><CommandName>{command}</CommandName><SequenceName>{sequence}</SequenceName>"
        f"<ReleaseTime>2022-11-09T01:02:03.5Z</ReleaseTime><ExecutionTime>1970-01-01T00:00:00.000000Z</ExecutionTime>"
        f"<PUSServiceType>237</PUSServiceType><PUSSubServiceType>1</PUSSubServiceType><Apid>1452</Apid>"
        f"<SSC>{count}</SSC><OnBoardState>PASSED</OnBoardState>"
        f"<PktTcReportParameterList>{parameters}</PktTcReportParameterList><RawBodyData>{body}</RawBodyData>"
        f"</PktTcReportListElement>\n"
    )


def _write(path: Path, *elements: str) -> Path:
    path.write_text(
        "<?xml version='1.0'?><ns2:ResponsePart xmlns:ns2='a'><Response><PktTcReportResponse><PktTcReportList>\n"
        + "".join(elements)
        + "</PktTcReportList></PktTcReportResponse></Response></ns2:ResponsePart>"
    )
    return path


def test_real_report(shared: Path) -> None:
    found = read_tc_reports(shared / "data/telemetry/b421e2_PktTcReport.xml")
    assert found.rejected == ()
    assert [report.sequence_count for report in found.reports] == [12203, 12204]
    table = found.table()
    assert table["command"].tolist() == ["ZIX0602A"] * 2
    assert table["description"].tolist() == ["STIX Load Memory"] * 2
    assert table["parameters"].tolist() == [209, 209]
    assert table["passed"].all()
    assert table["request_id"].tolist() == [-1, -1]
    assert table["execution_time"][0] == np.datetime64("2020-05-18T08:11:57.355586")
    for report in found.reports:
        assert tuple(report.body[7:9]) == (report.service, report.subtype) == (6, 2)
        length = report.parameters[2].number
        data = [parameter.number for parameter in report.parameters[3:]]
        assert bytes(number or 0 for number in data) == report.body[-2 - len(data) : -2]
        assert len(data) == length == 206
        assert report.parameters[0].number is None


def test_requests_and_their_commands(tmp_path: Path) -> None:
    text = tuple(hex(value) for value in VALUES)
    path = _write(
        tmp_path / "a.xml",
        _element("AIXF417A", VALUES),
        _element("ZIX39003", (5, *text[1:]), sequence="AIXF417A", count=1000),
        _element("AIXF414A", VALUES, count=3),
        _element("AIXF417A", VALUES[:7], count=4),
        _element("AIXF417A", ("SOON", *VALUES[1:]), count=5),
    )
    found = read_tc_reports(path)
    assert found.table()["request_id"].tolist() == [2211090042, 5, -1, -1, -1]
    assert np.isnat(found.table()["execution_time"]).all()
    first, second = found.reports[:2]
    expected = RequestParameters(2211090042, 1, 720000000 << 16 | 32768, 0xFFFFFFFF, 0, 600, 10, 0, 17, 0)
    assert first.request == expected
    requests = [
        SimpleNamespace(request_id=2211090042, seq_control=1),
        SimpleNamespace(request_id=99, seq_control=0xC000 | 1000),
        SimpleNamespace(request_id=98, seq_control=0xC000 | 3),
    ]
    assert commands_of(requests, found.reports) == [first, second, None]


@pytest.mark.parametrize("cut", [10, 300, 900])
def test_damaged_elements_are_set_apart(tmp_path: Path, cut: int) -> None:
    whole = _element("AIXF417A", VALUES)
    path = _write(tmp_path / "a.xml", whole, whole[:-cut], whole, "<PktTcReportListElement></PktTcReportListElement>")
    found = read_tc_reports(path)
    assert len(found) + len(found.rejected) == 4
    assert len(found) == 2
    assert [entry.reason[:10] for entry in found.rejected] == ["element 2:", "element 4:"]
    path.write_bytes(path.read_bytes()[: -len(whole) - cut])
    assert len(read_tc_reports(path).rejected) >= 1


def test_files_that_are_no_reports(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="does not exist"):
        read_tc_reports(tmp_path / "nowhere.xml")
    (tmp_path / "a.xml").write_text("<a/>")
    with pytest.raises(InputFileError, match="no telecommand report"):
        read_tc_reports(tmp_path / "a.xml")


def test_a_listing_links_requests_and_their_packets(tmp_path: Path) -> None:
    records = pixels([[(0, [1, 2])], [(10, [1, 2])]])
    request_id, control = int(records["request_id"][0]), int(records["tc_packet_seq_control"][0])
    telemetry = tmp_path / "b.bin"
    telemetry.write_bytes(encode(records))
    asked, other = (request_id, *VALUES[1:]), (request_id + 1, *VALUES[1:])
    report = _write(tmp_path / "a.xml", _element("AIXF417A", asked, count=9), _element("AIXF417A", other, count=10))
    lines = list(Inspection([report, telemetry]).lines())
    answered = [number for number, line in enumerate(lines) if "answered by" in line]
    assert [lines[number].strip() for number in answered] == [
        f"answered by {len(records)} packets of sci_pixels {request_id}-{control}"
    ]
    assert str(request_id) in lines[answered[0] - 1]
    assert lines[-1] == f"{len(records)} packets; 0 duplicates, 0 rejected"
    assert not any("answered" in line for line in Inspection([report]).lines())
