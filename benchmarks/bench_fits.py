"""Measure what official files cost: to check, to read, to take into an archive, and to write again.

    python benchmarks/bench_fits.py [FITS...] [--quick] [--json]

FITS are official level-1 files or folders of them, by default those of November 2022 in ``../shared``. CPU time of this
process for each file, in milliseconds, best of three passes: the headers alone (what `stixflow ingest` looks at first),
their check against the bytes, the checksums, `read_level1`, all columns of DATA with astropy, all columns with our
reader, and one whole `stixflow ingest` without a cluster; of what is read, `write_level1`. Files that hold several
runs, or are not read, are left out and counted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from astropy.io import fits

from stixflow.compute import Serial
from stixflow.errors import StixflowError
from stixflow.fits import read_level1, write_level1
from stixflow.fits._table import read_table
from stixflow.fits.headers import checked, peek, read_hdus, verify_sums
from stixflow.stages import run_stages

_PASSES = 3


def _astropy(path: Path) -> None:
    with warnings.catch_warnings(), fits.open(path) as hdus:
        warnings.simplefilter("ignore")
        for name in hdus["DATA"].columns.names:
            np.asarray(hdus["DATA"].data[name]).tobytes()


def _ours(path: Path) -> None:
    content, hdus = read_hdus(path)
    (data,) = (hdu for hdu in hdus if hdu.name == "DATA")
    table = read_table(path.name, data, content)
    for name in table.names:
        table.column(name).tobytes()


def _best(function: Callable[[Path], Any], files: Sequence[Path]) -> float:
    """CPU milliseconds for each file, the best of some passes."""
    passes = []
    for _ in range(_PASSES):
        started = time.process_time()
        for path in files:
            function(path)
        passes.append(time.process_time() - started)
    return min(passes) / len(files) * 1e3


def _ingest(files: Sequence[Path]) -> tuple[float, dict[str, int]]:
    with tempfile.TemporaryDirectory(prefix="bench-fits-") as root:
        started = time.process_time()
        report = run_stages(("ingest", "cubes"), files, root=f"{root}/archive", pool=Serial(), command="bench")
        return (time.process_time() - started) / len(files) * 1e3, report["official"]


def measure(paths: Sequence[Path]) -> dict[str, Any]:
    """Return every figure."""
    files = [one for path in paths for one in (sorted(path.rglob("*.fits*")) if path.is_dir() else [path])]
    cubes = {}
    for path in files:
        try:
            cubes[path] = read_level1(path)
        except StixflowError:
            continue
    read = list(cubes)
    figures = {
        "first header": _best(peek, read),
        "check of sizes": _best(checked, read),
        "checksums": _best(verify_sums, read),
        "DATA, astropy": _best(_astropy, read),
        "DATA, stixflow": _best(_ours, read),
        "read_level1": _best(read_level1, read),
    }
    _ingest(read[:1])
    figures["ingest"], books = _ingest(read)
    with tempfile.TemporaryDirectory(prefix="bench-fits-") as folder:
        figures["write_level1"] = _best(lambda path: write_level1(Path(folder), cubes[path]), read)
    size = sum(path.stat().st_size for path in read) / len(read) / 1e6
    return {"files": len(read), "left_out": len(files) - len(read), "mean_mb": size, "cpu_ms": figures, "books": books}


_REAL = Path(__file__).parents[2] / "shared/data/flares_202211/pixel_data"


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path, metavar="FITS")
    parser.add_argument("--quick", action="store_true", help="three of the files, for correctness only")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    paths = options.paths or sorted(_REAL.glob("*.fits"))
    found = measure(paths[:3] if options.quick else paths)
    if options.json:
        sys.stdout.write(json.dumps(found) + "\n")
        return 0
    sys.stdout.write(f"{found['files']} files of {found['mean_mb']:.2f} MB in the mean, {found['left_out']} left out\n")
    for name, value in found["cpu_ms"].items():
        sys.stdout.write(f"{name:16s} {value:8.2f} ms of CPU a file\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
