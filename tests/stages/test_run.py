"""What a run shares between its stages."""

from __future__ import annotations

import time
from collections.abc import Iterator

from stixflow.stages.run import gathered


def test_what_comes_at_once_is_written_together() -> None:
    assert [len(some) for some in gathered(range(70))] == [32, 32, 6]
    assert list(gathered([])) == []


def test_what_came_after_a_break_does_not_wait_for_more() -> None:
    def slow() -> Iterator[int]:
        yield 0
        time.sleep(0.25)
        yield 1
        yield 2

    assert list(gathered(slow())) == [[0, 1], [2]]
