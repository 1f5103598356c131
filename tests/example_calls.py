"""Functions that workers can import, each with its own way to go wrong."""

from __future__ import annotations

import os
import threading


def square(number: int) -> int:
    return number * number


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
