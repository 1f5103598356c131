"""The stage that images flares: its methods, and what becomes of flares that go together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stixflow import jobs, stages
from stixflow.archive import open_archive
from stixflow.compute import Serial
from stixflow.stages import images


def _run(root: Path, *methods: str) -> dict[str, Any]:
    science = stages.Science(methods=methods)
    return stages.run_stages(("images",), [], root=str(root), pool=Serial(), command="test", science=science)


def test_other_methods_make_the_maps_anew_and_the_same_ones_do_not(archive_copy: Path) -> None:
    assert _run(archive_copy)["counts"] == {}
    assert _run(archive_copy, "mem_ge")["counts"] == {"flares_imaged": 1, "images": 2}
    made = open_archive(archive_copy).images()
    assert set(made["method"]) == {"mem_ge"}
    assert _run(archive_copy, "mem_ge")["counts"] == {}


def test_flares_of_a_lost_group_go_alone(archive_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = open_archive(archive_copy)
    job = replace(images.flare_job(archive, str(archive.flares()["flare_id"][0])), methods=("bp",))
    others = [f"flare{number}" for number in range(15)]
    todo = [replace(job, flare_id=name) for name in (*others[:2], "poison", *others[2:])]
    sizes = []

    def image_together(group: Sequence[jobs.ImageJob]) -> tuple[jobs.Imaged | jobs.NotImaged, ...]:
        sizes.append(len(group))
        if any(one.flare_id == "poison" for one in group):
            raise MemoryError("the worker is gone")
        return tuple(jobs.Imaged((), {}) for _ in group)

    monkeypatch.setattr(jobs, "image_together", image_together)
    with stages.open_run(str(archive_copy), pool=Serial(), command="test") as run:
        made = [one.flare_id for one, _ in images._imaged(run, todo)]
        failed = run.failed
    assert sorted(made) == sorted(others)
    assert sizes == [4, 3, 2, *[1] * 7, *[1] * 4]
    assert [(note["item"], note["kind"]) for note in failed] == [("flare poison", "MemoryError")]
