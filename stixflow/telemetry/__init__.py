"""Telemetry of STIX: bytes to packets to records, and back."""

from stixflow.telemetry.containers import read_packets
from stixflow.telemetry.decode import Decoded, Records, decode
from stixflow.telemetry.encode import encode, write_binary, write_xml
from stixflow.telemetry.packets import Accounting, PacketKeys, Packets, Quarantined, concat

__all__ = [
    "Accounting",
    "Decoded",
    "PacketKeys",
    "Packets",
    "Quarantined",
    "Records",
    "concat",
    "decode",
    "encode",
    "read_packets",
    "write_binary",
    "write_xml",
]
