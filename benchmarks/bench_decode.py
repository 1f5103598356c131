"""How many megabytes of telemetry a CPU second frames and decodes.

Framing alone, framing and decoding to raw numbers, and everything up to decompressed numbers, engineering values and
the UTC of every bin: on streams of real packets (synthetic ones for SSID 31 and 32) repeated with new times and
counters. Single core; CPU time of the process. The speed of copying the same bytes shows what the memory allows.

    python benchmarks/bench_decode.py [--megabytes 60] [--json] [--shared ../shared]
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from stixflow.bench.decode import decode_all, numbers
from stixflow.telemetry import Packets, concat, read_packets
from stixflow.telemetry.ccsds import frame

DAY = {
    "quick look": ("21,6,30", "21,6,31", "21,6,32", "21,6,33", "21,6,34"),
    "housekeeping": ("3,25,2",),
    "raw pixels": ("21,6,20",),
    "pixels": ("21,6,21",),
    "sums, visibilities": ("21,6,22", "21,6,23"),
    "spectrograms": ("21,6,24",),
    "calibration, aspect": ("21,6,41", "21,6,42"),
}
"""Packet types of the streams; the day is all of them in equal parts."""

PUBLIC = {"stixcore": (0.1, 0.2), "data-centre parser": (0.3, 0.3)}
"""MB per CPU second of the public parsers, from this machine's kind, lowest and highest."""


def main() -> None:
    arguments = _arguments()
    packets = _packets(arguments.shared)
    share = arguments.megabytes / len(DAY)
    streams = {name: interleave(_of_types(packets, types, share)) for name, types in DAY.items()}
    streams = {"mixed day": interleave(streams.values()), **streams}
    rows = [measure(name, stream) for name, stream in streams.items()]
    if arguments.json:
        sys.stdout.write(json.dumps({"decode": rows, "public_parsers": PUBLIC}) + "\n")
        return
    sys.stdout.writelines(_table(rows))


def _packets(shared: Path) -> Packets:
    """Read real packets of every type there is, and synthetic ones of the others."""
    real = read_packets([shared / "data" / "telemetry", shared / "oracle" / "telemetry" / "requests"])
    with gzip.open(shared / "oracle" / "telemetry" / "synthetic" / "synthetic_packets.json.gz") as file:
        blobs = [bytes.fromhex(entry["hex"]) for entry in json.load(file) if entry["key"] in ("21,6,31", "21,6,32")]
    return concat([real, Packets.from_bytes(b"".join(blobs))])


def _of_types(packets: Packets, types: tuple[str, ...], megabytes: float) -> Iterable[bytes]:
    for text in types:
        service, subtype, selector = (int(part) for part in text.split(","))
        mask = (packets.service == service) & (packets.subtype == subtype) & (packets.selector == selector)
        yield repeat(packets.select(mask), megabytes / len(types))


def _table(rows: list[dict[str, Any]]) -> Iterable[str]:
    yield "MB per CPU second\n"
    yield f"{'stream':20} {'MB':>6} {'packets':>8} {'copying':>8} {'framing':>8} {'decoding':>8} {'all':>8}\n"
    for row in rows:
        speeds = " ".join(f"{row[name]:8.0f}" for name in ("copying", "framing", "decoding", "all"))
        yield f"{row['stream']:20} {row['megabytes']:6.1f} {row['packets']:8d} {speeds}\n"
    for name, (low, high) in PUBLIC.items():
        speed = f"{low}-{high}" if low < high else f"{low}"
        ratio = rows[0]["all"] / high
        yield f"{name:20} {'':6} {'':8} {'':8} {'':8} {'':8} {speed:>8}   stixflow: {ratio:.0f} x, mixed day\n"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--megabytes", type=float, default=60.0)
    parser.add_argument("--quick", action="store_const", const=6.0, dest="megabytes", help="6 MB")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    return parser.parse_args()


def repeat(packets: Packets, megabytes: float) -> bytes:
    """Repeat packets with new header times and counters, so that none is a duplicate."""
    once = np.frombuffer(packets.to_bytes(), dtype=np.uint8)
    copies = max(int(megabytes * 1e6 / once.size), 1)
    stream = np.tile(once, copies).reshape(copies, -1)
    starts = np.cumsum(packets.length) - packets.length
    number = np.arange(copies)
    for start, scet in zip(starts.tolist(), (packets.scet >> 16).tolist(), strict=True):
        coarse = scet + number
        for byte in range(4):
            stream[:, start + 10 + byte] = coarse >> (24 - 8 * byte) & 0xFF
        stream[:, start + 2] = stream[:, start + 2] & 0xC0 | (number >> 8 & 0x3F)
        stream[:, start + 3] = number & 0xFF
    return stream.tobytes()


def interleave(streams: Iterable[bytes]) -> bytes:
    """Mix the packets of several streams, as they come down."""
    packets = concat([Packets.from_bytes(stream) for stream in streams])
    return packets.select(np.random.default_rng(0).permutation(len(packets))).to_bytes()


def measure(name: str, stream: bytes) -> dict[str, float | int | str]:
    """MB per CPU second of copying, of framing alone, with decoding, and up to decompressed numbers and UTC."""
    megabytes = len(stream) / 1e6
    work: dict[str, Callable[[], object]] = {
        "copying": lambda: bytearray(stream),
        "framing": lambda: frame(stream),
        "decoding": lambda: decode_all(stream, len),
        "all": lambda: decode_all(stream, numbers),
    }
    speeds = {what: megabytes / _seconds(run) for what, run in work.items()}
    return {"stream": name, "megabytes": megabytes, "packets": int(frame(stream).offset.size), **speeds}


def _seconds(work: Callable[[], object], rounds: int = 3) -> float:
    best = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


if __name__ == "__main__":
    main()
