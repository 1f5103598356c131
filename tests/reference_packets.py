"""Results of the reference decoder, in the form of ours."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from stixflow.telemetry import Records
from stixflow.telemetry.layouts import layouts


def read_json(path: Path) -> Any:
    with gzip.open(path) as file:
        return json.load(file)


def by_parameter(records: Records) -> dict[str, list[int]]:
    """Raw values of every parameter in packet order, by its database id."""
    found: dict[str, list[int]] = {}
    for _, scope in layouts()[records.layout[0]].levels.values():
        for one in scope.fields:
            column = records[one.name].astype(object)
            columns = column.T if one.repeat else [column]
            for offset, values in enumerate(columns):
                name = f"{one.id[:4]}{int(one.id[4:]) + offset:04d}" if one.repeat else one.id
                found.setdefault(name, []).extend(int(value) for value in values)
    return found


def of_tree(tree: list[Any]) -> dict[str, list[int]]:
    """Raw values by parameter from the nested form of the reference decoder."""
    found: dict[str, list[int]] = {}
    stack = list(reversed(tree))
    while stack:
        node = stack.pop()
        found.setdefault(node[0], []).append(int(node[1]))
        if len(node) > 2:
            stack += reversed(node[2])
    return found
