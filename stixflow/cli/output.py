"""What a command prints: text or one JSON object, tables, progress."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def emit(options: argparse.Namespace, payload: Mapping[str, Any], text: Callable[[Any], str]) -> None:
    """Print what a command found, as text or as one JSON object."""
    shown = json.dumps(_plain(payload), indent=2, default=str, allow_nan=False) if options.json else text(payload)
    sys.stdout.write(shown + "\n")


def _plain(value: Any) -> Any:
    """Make a value fit for JSON, which has neither NaN nor the numbers of numpy."""
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if getattr(getattr(value, "dtype", None), "kind", " ") in "biuf":
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def emit_frame(options: argparse.Namespace, name: str, frame: Any, columns: Sequence[str]) -> None:
    """Print a table: some columns as text, or all of them as one JSON object."""
    if options.json:
        payload = {name: json.loads(frame.to_json(orient="records", date_format="iso", date_unit="ms"))}
        emit(options, payload, str)
        return
    shown = [column for column in columns if column in frame.columns]
    from stixflow.archive.formats import for_people

    sys.stdout.write((for_people(frame[shown]).to_string(index=False) if len(frame) else f"no {name}") + "\n")


def progress(options: argparse.Namespace) -> Callable[[str, int, int], None]:
    """Show progress on the error stream: one line that moves on a terminal, one line a stage elsewhere."""
    moves = sys.stderr.isatty()

    def show(stage: str, done: int, total: int) -> None:
        if options.quiet or not (moves or done == total):
            return
        end = "\n" if done == total or not moves else ""
        sys.stderr.write(f"{chr(13) if moves else ''}{stage:>10}  {done} of {total}{end}")
        sys.stderr.flush()

    return show
