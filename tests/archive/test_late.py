"""Late and duplicate telemetry re-opens just the partitions that it touches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from example_delivery import DAYS, pick, process, published, telemetry, write

from stixflow.archive import open_archive
from stixflow.telemetry import concat


def _pointers(root: Path) -> dict[str, int]:
    archive = open_archive(root)
    found = {f"{item.product} {item.key}": item.id for item in archive.catalog.partitions()}
    archive.close()
    return found


def test_only_what_is_touched_is_published_again(delivery: Path, processed: Path, tmp_path: Path) -> None:
    packets = telemetry(delivery)
    is_light = packets.product() == "ql_lightcurve"
    is_spectrogram = packets.product() == "sci_spectrogram"
    late = np.zeros(len(packets), dtype=bool)
    late[np.flatnonzero(is_light)[-1]] = late[np.flatnonzero(is_spectrogram)[-1]] = True
    root = tmp_path / "archive"
    process(root, write(tmp_path / "early.bin", pick(packets, ~late)), delivery / "ephemeris")
    before = _pointers(root)
    # With it comes much that is known already, of one more partition: another packet set, the same content.
    again = pick(packets, late | (is_spectrogram & (np.arange(len(packets)) % 2 == 0)))
    report = process(root, write(tmp_path / "late.bin", again))
    after = _pointers(root)
    touched = {name for name in after if after[name] != before.get(name)}
    (spectrogram,) = (name for name in after if name.startswith("sci_spectrogram"))
    assert touched == {f"ql_lightcurve {DAYS[1]}", spectrogram}
    assert report["balance"]["used"] == 2
    assert report["balance"]["duplicates"] == len(again) - 2
    assert published(root) == published(processed)


def test_duplicates_alone_change_nothing_that_is_shown(delivery: Path, archive_copy: Path, tmp_path: Path) -> None:
    packets = telemetry(delivery)
    before = published(archive_copy)
    one = packets.of_product("ql_lightcurve").select(slice(0, 3))
    report = process(archive_copy, write(tmp_path / "again.bin", concat([one, one])))
    assert report["balance"]["used"] == 0
    assert report["balance"]["duplicates"] == report["balance"]["packets_in"] > 0
    assert published(archive_copy) == before
    assert open_archive(archive_copy).verify() == []
