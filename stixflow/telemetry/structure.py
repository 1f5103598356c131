"""What one packet holds: a tree of byte-aligned blocks of fields and of repeated groups.

A repeated group is named by the field that counts it (``num_energy_groups``); neighbouring fields ``name_0 .. name_n``
of equal width are one field ``name`` of `n + 1` numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

ROOT = "packet"
"""Name of the outermost level: one row per packet."""
TAIL = "tail"
"""Level of the bytes behind the last described field, of types whose content the database does not describe."""
NO_SELECTOR = -1


@dataclass(frozen=True, slots=True)
class Field:
    """One parameter: `bits` wide from bit `at` of its block; `repeat` equal neighbours make one column."""

    name: str
    id: str
    at: int
    bits: int
    repeat: int = 0
    signed: bool = False
    scheme: tuple[str, str, str] | None = None
    """Names of the fields that hold s, k, m of its compression."""
    sign: Literal["", "always", "never"] = ""
    """Whether its codes have a sign bit, where that is not as the packet says."""
    enum: str | None = None
    """Text table of its engineering values."""
    curve: str | None = None
    """Calibration curve of its engineering values."""
    scale: tuple[float, float] | None = None
    """Scale and offset of its engineering values."""
    unit: str = ""

    @property
    def dtype(self) -> np.dtype[Any]:
        size = 1 if self.bits <= 8 else 2 if self.bits <= 16 else 4 if self.bits <= 32 else 8
        return np.dtype(f"{'i' if self.signed else 'u'}{size}")


@dataclass(frozen=True, slots=True)
class Word:
    """A byte or word of the database that contains fields, and has an identifier of its own."""

    id: str
    at: int
    bits: int


@dataclass(frozen=True, slots=True)
class Block:
    """Neighbouring fields that fill whole bytes; `unused` marks the bits that no field owns."""

    fields: tuple[Field, ...]
    size: int
    unused: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """A group repeated as often as the field `count` of the enclosing scope says."""

    count: str
    scope: Scope


@dataclass(frozen=True, slots=True)
class Scope:
    """What one row of a level holds, in packet order."""

    level: str
    parts: tuple[Block | Repeat, ...]
    words: tuple[Word, ...] = ()
    """Words of its first block."""

    @property
    def blocks(self) -> tuple[Block, ...]:
        return tuple(part for part in self.parts if isinstance(part, Block))

    @property
    def repeats(self) -> tuple[Repeat, ...]:
        return tuple(part for part in self.parts if isinstance(part, Repeat))

    @property
    def min_size(self) -> int:
        """Bytes of one row when every group in it is empty."""
        return sum(block.size for block in self.blocks)

    @property
    def is_fixed(self) -> bool:
        return not self.repeats

    @property
    def fields(self) -> tuple[Field, ...]:
        return tuple(field for block in self.blocks for field in block.fields)


PacketType: TypeAlias = tuple[int, int, int]
Status: TypeAlias = Literal["confirmed", "inferred"]


@dataclass(frozen=True, slots=True)
class Layout:
    """The layout of one packet type in one range of database versions."""

    index: int
    type: PacketType
    apid: int
    spid: int
    idb_from: tuple[int, ...]
    idb_to: tuple[int, ...]
    status: Status
    scope: Scope
    kind: Literal["fixed", "variable"] = "fixed"

    @property
    def has_tail(self) -> bool:
        """Tell whether undescribed bytes may follow the fields."""
        return any(repeat.count == TAIL for repeat in self.scope.repeats)

    @property
    def levels(self) -> dict[str, tuple[str, Scope]]:
        """Every level with its parent, outermost first."""
        found: dict[str, tuple[str, Scope]] = {}
        _collect(self.scope, "", found)
        return found

    def has_field(self, name: str) -> bool:
        """Tell whether a level has a field of that name."""
        return any(one.name == name for _, scope in self.levels.values() for one in scope.fields)


def _collect(scope: Scope, parent: str, found: dict[str, tuple[str, Scope]]) -> None:
    found[scope.level] = (parent, scope)
    for repeat in scope.repeats:
        _collect(repeat.scope, scope.level, found)
