"""Functions that workers can import, each with its own way to go wrong."""

from __future__ import annotations

import os
import threading


def square(number: int) -> int:
    return number * number


def sum_of_blocks(number: int) -> int:
    import dask.array

    return int(dask.array.full(10, number, chunks=1).sum().compute())


def hold(n_bytes: int) -> None:
    bytearray(b"x") * n_bytes


def fail_on_seven(number: int) -> int:
    if number == 7:
        raise ValueError("seven is not welcome")
    return number


def die_on_13_and_29(number: int) -> int:
    if number in (13, 29):
        os._exit(1)
    return number


def unpicklable_on_3(number: int) -> object:
    return threading.Lock() if number == 3 else number


def blas_threads(size: int) -> dict[str, int]:
    """Multiply, then tell how many threads each numerical library of this process uses."""
    import numpy as np
    from threadpoolctl import threadpool_info

    np.ones((size, size)) @ np.ones((size, size))
    found = {library["filepath"]: int(library["num_threads"]) for library in threadpool_info()}
    return found | {"environment": int(os.environ["OMP_NUM_THREADS"]), "blosc": int(os.environ["BLOSC_NTHREADS"])}


def burn(seconds: float) -> None:
    """Use the processor for so long."""
    import time

    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def write_bytes(path: str) -> None:
    """Write a megabyte and read it."""
    with open(path, "wb") as stream:
        stream.write(bytes(1_000_000))
    with open(path, "rb") as stream:
        stream.read()
