"""How many megabytes of telemetry a CPU second frames and decodes.

Framing alone, and framing + decoding + decompression + UTC of every bin, on streams of real packets repeated with
new times and counters. Single core; CPU time of the process.

    python benchmarks/bench_decode.py [--megabytes 60] [--json] [--shared ../shared]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stixflow.telemetry import Packets, Records, concat, decode, read_packets
from stixflow.telemetry.ccsds import frame
from stixflow.telemetry.requests import bin_starts
from stixflow.time import scet_to_utc

PRODUCTS = ("ql_lightcurve", "sci_pixels", "sci_spectrogram")
PUBLIC = "stixcore 0.1-0.2, data-centre parser 0.3 MB per CPU second"


def main() -> None:
    arguments = _arguments()
    packets = read_packets(
        [arguments.shared / "data" / "telemetry", arguments.shared / "oracle" / "telemetry" / "requests"]
    )
    kinds = {product: packets.of_product(product) for product in PRODUCTS}
    streams = {name: repeat(kind, arguments.megabytes / len(kinds)) for name, kind in kinds.items()}
    streams = {"mixed": interleave(streams.values()), **streams}
    rows = [measure(name, stream) for name, stream in streams.items()]
    write = sys.stdout.write
    if arguments.json:
        write(json.dumps({"decode": rows, "public_decoders": PUBLIC}) + "\n")
        return
    write(f"{'stream':16} {'MB':>6} {'packets':>8} {'framing':>8} {'all':>8}   MB per CPU second ({PUBLIC})\n")
    for row in rows:
        write(
            f"{row['stream']:16} {row['megabytes']:6.1f} {row['packets']:8d} {row['framing']:8.0f} {row['all']:8.0f}\n"
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--megabytes", type=float, default=60.0)
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
    """MB per CPU second of framing alone, and of everything up to decompressed numbers and UTC."""
    megabytes = len(stream) / 1e6
    framing = _seconds(lambda: frame(stream))
    everything = _seconds(lambda: decode_all(stream))
    return {
        "stream": name,
        "megabytes": megabytes,
        "packets": int(frame(stream).offset.size),
        "framing": megabytes / framing,
        "all": megabytes / everything,
    }


def _seconds(work: Callable[[], object], rounds: int = 3) -> float:
    best = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def decode_all(stream: bytes) -> int:
    """Frame, decode, decompress and date; return how many numbers came out."""
    batches = Packets.from_bytes(stream).batches()
    return sum(_numbers(records) for batch in batches for records in decode(batch).values())


def _numbers(records: Records) -> int:
    triggers = "trigger" if "trigger" in records else "triggers"
    numbers: list[NDArray[np.generic]] = [
        records.values("counts"),
        records.values(triggers),
        scet_to_utc(bin_starts(records)),
    ]
    return sum(column.size for column in numbers)


if __name__ == "__main__":
    main()
