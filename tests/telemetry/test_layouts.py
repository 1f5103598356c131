from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stixflow.errors import NotFound
from stixflow.telemetry.layouts import (
    PRODUCT_TYPES,
    find_layout,
    idb_version,
    known_types,
    layout_indices,
    layouts,
    selectors,
    type_name,
)
from stixflow.telemetry.structure import TAIL, Block, Scope


def test_every_packet_type_is_known() -> None:
    assert len(known_types()) == 246
    assert [layout.index for layout in layouts()] == list(range(len(layouts())))


@pytest.mark.parametrize("layout", layouts(), ids=lambda layout: f"{layout.type}-{layout.index}")
def test_fields_and_unused_bits_fill_every_block(layout: Any) -> None:
    for _, scope in layout.levels.values():
        assert isinstance(scope, Scope)
        for block in scope.blocks:
            _check_block(block)


def _check_block(block: Block) -> None:
    owned = np.zeros(block.size * 8, dtype=int)
    for field in block.fields:
        owned[field.at : field.at + field.bits * max(field.repeat, 1)] += 1
    unused = np.unpackbits(np.array(block.unused, dtype=np.uint8))
    overlap = any(field.name == "enabled_groups" for field in block.fields)
    assert overlap or (owned + unused == 1).all()


def test_field_names_are_unique_within_a_layout() -> None:
    for layout in layouts():
        names = [field.name for _, scope in layout.levels.values() for field in scope.fields]
        assert len(names) == len(set(names)), layout.type


@pytest.mark.parametrize(
    ("coarse", "version"),
    [
        (0, (2, 26, 32)),
        (640198039, (2, 26, 31)),
        (640265395, (2, 26, 31)),
        (640265396, (2, 26, 32)),
        (677774248, (2, 26, 34)),
        (677774249, (2, 26, 35)),
        (800000000, (2, 26, 38)),
    ],
)
def test_database_version_by_time(coarse: int, version: tuple[int, ...]) -> None:
    assert idb_version(coarse) == version


def test_time_field_of_pixel_data_changes_with_the_database() -> None:
    def names(coarse: int) -> set[str]:
        scope = find_layout((21, 6, 21), coarse).levels["num_substructures"][1]
        return {field.name for field in scope.fields}

    assert "delta_time" in names(677774248)
    assert "start_time" in names(677774249)
    both = layout_indices((21, 6, 21), np.array([677774248, 677774249]))
    assert both[0] != both[1]


def test_triggers_of_old_pixel_data_use_the_counts_scheme() -> None:
    for coarse, scheme in [(650000000, "counts_k"), (720000000, "triggers_k")]:
        scope = find_layout((21, 6, 21), coarse).levels["num_substructures"][1]
        (trigger,) = [field for field in scope.fields if field.name == "trigger"]
        assert trigger.repeat == 16
        assert trigger.scheme is not None
        assert trigger.scheme[1] == scheme


def test_unknown_type_is_named() -> None:
    with pytest.raises(NotFound, match=r"21, 6, 99"):
        find_layout((21, 6, 99), 0)


def test_names_of_types() -> None:
    assert type_name((21, 6, 30)) == "ql_lightcurve"
    assert type_name((239, 3, -1)) == "239,3"
    assert type_name((21, 6, 31)) == "21,6,31"
    assert set(PRODUCT_TYPES.values()) <= known_types().keys()


def test_table_agrees_with_the_facts(shared: Path) -> None:
    facts = json.loads((shared / "facts/telemetry_layouts.json").read_text())
    assert {",".join(map(str, t if t[2] >= 0 else t[:2])) for t in known_types()} == set(facts["packets"])
    assert selectors() == {
        tuple(map(int, key.split(","))): (entry["byte"], entry["bits"] // 8) for key, entry in facts["selector"].items()
    }
    for key, packet in facts["packets"].items():
        numbers = tuple(int(part) for part in key.split(","))
        found = known_types()[(*numbers, -1)[:3]]  # type: ignore[index]
        assert len(found) == len(packet["variants"])
        for layout, variant in zip(found, packet["variants"], strict=True):
            bits = sum(
                field.bits * max(field.repeat, 1)
                for name, (_, s) in layout.levels.items()
                if name != TAIL
                for field in s.fields
            )
            assert bits == _bits(variant["layout"])


def _bits(items: list[dict[str, Any]]) -> int:
    total = 0
    for item in items:
        item = item.get("overlap", item)
        total += _bits(item["of"]) if "of" in item else item.get("bits", 0)
    return total
