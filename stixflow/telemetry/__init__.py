"""Telemetry of STIX: bytes to packets to records, and back."""

from stixflow.telemetry.boxes import Box
from stixflow.telemetry.containers import iter_packets, read_packets
from stixflow.telemetry.contradictions import consistent
from stixflow.telemetry.decode import Decoded, decode
from stixflow.telemetry.encode import encode, write_binary, write_xml
from stixflow.telemetry.packets import Accounting, PacketKeys, Packets, Quarantined, concat
from stixflow.telemetry.records import Records
from stixflow.telemetry.requests import Request, regroup
from stixflow.telemetry.telecommands import TcReport, TcReports, commands_of, read_tc_reports

__all__ = [
    "Accounting",
    "Box",
    "Decoded",
    "PacketKeys",
    "Packets",
    "Quarantined",
    "Records",
    "Request",
    "TcReport",
    "TcReports",
    "commands_of",
    "concat",
    "consistent",
    "decode",
    "encode",
    "iter_packets",
    "read_packets",
    "read_tc_reports",
    "regroup",
    "write_binary",
    "write_xml",
]
