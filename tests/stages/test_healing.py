"""A run that was killed anywhere is healed by the next; what was published can be taken back."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from example_delivery import DAYS, flare_rows, pick, process, published, telemetry, write

from stixflow.archive import Archive, Catalog, open_archive
from stixflow.errors import NotFound, StixflowError
from stixflow.stages import archive_status, rollback
from stixflow.telemetry import Packets


@pytest.fixture(scope="module")
def packets(delivery: Path) -> Packets:
    return telemetry(delivery)


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


@contextmanager
def killed_at(method: str, *, call: int, before: bool) -> Iterator[None]:
    """Make a method of the catalog end the run at one of its calls, before or after its work."""
    original = getattr(Catalog, method)
    calls = iter(range(1, 1000))

    def stopping(self: Catalog, *arguments: object, **options: object) -> object:
        last = next(calls) == call
        if last and before:
            raise Killed
        value = original(self, *arguments, **options)
        if last:
            raise Killed
        return value

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Catalog, method, stopping)
        patch.setattr("stixflow.stages.run._MOST_TOGETHER", 2)
        with pytest.raises(Killed):
            yield


KILL_POINTS = [
    ("register_file", 1, True),
    ("register_file", 3, False),
    ("register_file", 6, False),
    ("stage_all", 1, True),
    ("stage_all", 2, False),
    ("publish", 3, True),
    ("publish", 4, False),
    ("replace_flares", 2, True),
    ("replace_flares", 2, False),
    ("mark_done", 1, True),
    ("replace_images", 1, True),
    ("replace_images", 1, False),
    ("locate_flares", 1, False),
    ("finish_run", 1, True),
]


@pytest.mark.parametrize(("method", "call", "before"), KILL_POINTS)
def test_a_killed_run_is_healed_by_the_next(
    method: str, call: int, before: bool, processed: Path, delivery: Path, tmp_path: Path
) -> None:
    root = tmp_path / "archive"
    with killed_at(method, call=call, before=before):
        process(root, delivery / "telemetry", delivery / "ephemeris")
    for name, value in published(root).items():
        assert value == published(processed)[name]
    assert open_archive(root).verify() == []
    report = process(root, delivery / "telemetry", delivery / "ephemeris")
    assert not report["failed"]
    assert same_for_readers(root, processed)
    assert process(root, delivery / "telemetry", delivery / "ephemeris")["counts"] == {}


def same_for_readers(one: Path, other: Path) -> bool:
    first, second = open_archive(one), open_archive(other)
    images = [set(archive.images()["image_id"]) for archive in (first, second)]
    places = [archive.flares()[["x_hpc", "y_hpc", "goes_class"]].values.tolist() for archive in (first, second)]
    return (
        published(one) == published(other)
        and flare_rows(first) == flare_rows(second)
        and images[0] == images[1]
        and places[0] == places[1]
        and all((one / path).is_file() for path in first.images()["path"])
    )


def test_readers_keep_the_old_cube_until_the_new_one_is_published(packets: Packets, tmp_path: Path) -> None:
    root, light = tmp_path / "archive", packets.of_product("ql_lightcurve")
    process(root, write(tmp_path / "early.bin", light.select(slice(0, 8))))
    before = published(root)
    with killed_at("publish", call=1, before=True):
        process(root, write(tmp_path / "late.bin", light.select(slice(8, None))))
    assert published(root) == before
    process(root)
    assert published(root)[f"ql_lightcurve {DAYS[1]}"][1] > before[f"ql_lightcurve {DAYS[1]}"][1]


def test_a_process_that_is_killed_leaves_nothing_wrong(delivery: Path, processed: Path, tmp_path: Path) -> None:
    """The same with a real process and a real signal, in the middle of publishing."""
    root = tmp_path / "archive"
    code = (
        "import os, signal\n"
        "from pathlib import Path\n"
        "from stixflow.archive import Catalog\n"
        "from stixflow.compute import Serial\n"
        "from stixflow.stages import STAGES, run, run_stages\n"
        "run._MOST_TOGETHER = 2\n"
        "stage, calls = Catalog.stage_all, iter(range(9))\n"
        "def die(self, partitions):\n"
        "    made = stage(self, partitions)\n"
        "    if next(calls) == 2:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return made\n"
        "Catalog.stage_all = die\n"
        f"run_stages(STAGES, [Path({str(delivery)!r})], root={str(root)!r}, pool=Serial(), command='test')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=os.environ, check=False)
    assert done.returncode == -signal.SIGKILL
    assert archive_status(str(root))["runs"][0]["state"] == "dead"
    process(root, delivery)
    assert same_for_readers(root, processed)


def test_a_full_disc_is_a_failure_that_is_told_and_healed(delivery: Path, processed: Path, tmp_path: Path) -> None:
    root = tmp_path / "archive"

    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stixflow.cubes.files.survive", full)
        report = process(root, delivery)
    assert {note["stage"] for note in report["failed"]} == {"ingest"}
    assert all("No space left" in note["error"] for note in report["failed"])
    assert published(root) == {}
    assert not list(root.rglob("*.part"))
    process(root, delivery)
    assert same_for_readers(root, processed)


@pytest.mark.parametrize("fault", ["flipped", "gone"])
def test_a_lost_packet_set_comes_back_with_its_file(
    archive_copy: Path, delivery: Path, packets: Packets, processed: Path, tmp_path: Path, fault: str
) -> None:
    """It matters only when its partition is built again; then nothing is published without it."""
    catalog = open_archive(archive_copy).catalog
    (kept,) = catalog.packet_sets("sci_spectrogram")
    target = archive_copy / kept.path
    blob = target.read_bytes()
    science = packets.of_product("sci_spectrogram")
    if fault == "flipped":
        target.write_bytes(blob[:-1] + bytes([blob[-1] ^ 1]))
    else:
        target.unlink()
    report = process(archive_copy, write(tmp_path / "other.bin", pick(science, [0, 1, 2])))
    (failed,) = report["failed"]
    assert kept.path in failed["error"]
    assert "ingest" in failed["error"]
    assert published(archive_copy) == published(processed)
    target.unlink(missing_ok=True)
    report = process(archive_copy, delivery)
    assert report["counts"]["files_restored"] == 1
    assert not report["failed"]
    assert target.read_bytes() == blob
    assert published(archive_copy) == published(processed)


def test_a_lost_ephemeris_file_comes_back_with_its_delivery(archive_copy: Path, delivery: Path) -> None:
    kept, _ = open_archive(archive_copy).catalog.packet_sets("ephemeris")
    (archive_copy / kept.path).unlink()
    report = process(archive_copy, delivery)
    assert report["counts"] == {"files_restored": 1}
    assert (archive_copy / kept.path).is_file()


# Rolling back -------------------------------------------------------------------------------------------------------


@pytest.fixture
def twice(packets: Packets, delivery: Path, tmp_path: Path) -> Archive:
    """Return an archive whose second day was published twice, the flare in the later run only."""
    root, light = tmp_path / "twice", packets.of_product("ql_lightcurve")
    process(root, write(tmp_path / "1.bin", light.select(slice(7, None))), delivery / "ephemeris")
    process(root, delivery)
    return open_archive(root)


def test_roll_back_shows_the_earlier_run_and_its_flares(twice: Archive) -> None:
    first, second = twice.catalog.history("ql_lightcurve", DAYS[1])
    assert len(twice.flares()) == 1
    told = rollback(twice.root, "ql_lightcurve", DAYS[1])
    assert (told["run_id"], told["digest"]) == (first.run_id, first.digest)
    assert published(Path(twice.root))[f"ql_lightcurve {DAYS[1]}"][0] == first.digest != second.digest
    assert flare_rows(twice) == []
    assert twice.lightcurves(DAYS[1], "2022-06-17").sizes["time"] == first.n_time
    assert twice.verify() == []


def test_the_next_run_respects_a_roll_back(twice: Archive, packets: Packets, tmp_path: Path) -> None:
    """What an operator took back stays back, until packets come that make another partition."""
    root = Path(twice.root)
    first = rollback(twice.root, "ql_lightcurve", DAYS[1])
    report = process(root)
    assert "rolled back" in report["skipped"][0]["reason"]
    assert "ql_lightcurve" not in report["counts"]
    assert published(root)[f"ql_lightcurve {DAYS[1]}"][0] == first["digest"]
    process(root, write(tmp_path / "more.bin", pick(packets.of_product("ql_lightcurve"), [9, 8])))
    assert published(root)[f"ql_lightcurve {DAYS[1]}"][0] != first["digest"]
    assert len(twice.flares()) == 1


def test_there_is_nothing_before_the_first_run(archive_copy: Path) -> None:
    with pytest.raises(NotFound, match="published once"):
        rollback(str(archive_copy), "ql_lightcurve", DAYS[1])
    with pytest.raises(NotFound, match="nothing is published"):
        rollback(str(archive_copy), "ql_lightcurve", "2020-01-01")


# Verifying ----------------------------------------------------------------------------------------------------------


def objects(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*.zarr/**/*") if path.is_file())


@pytest.mark.parametrize("at", [0.1, 0.5, 0.9])
def test_verify_finds_a_flipped_byte_and_a_lost_object(archive_copy: Path, at: float) -> None:
    archive = open_archive(archive_copy)
    assert archive.verify() == []
    files = objects(archive_copy)
    victim = files[int(at * len(files))]
    blob = victim.read_bytes()
    victim.write_bytes(blob[: len(blob) // 2] + bytes([blob[len(blob) // 2] ^ 1]) + blob[len(blob) // 2 + 1 :])
    flipped = archive.verify()
    victim.unlink()
    lost = archive.verify()
    assert len(flipped) >= 1
    assert len(lost) >= 1
    assert all(victim.name in str(defect) or victim.parent.name in str(defect) for defect in lost)


def test_a_lost_shard_is_an_error_not_zero_counts(archive_copy: Path) -> None:
    """Readers are told; they never get zeros for what was lost."""
    archive = open_archive(archive_copy)
    day = archive.catalog.current("ql_lightcurve", DAYS[1])
    assert day is not None
    (shard,) = (archive_copy / day.path).rglob("counts/c.*")
    shard.unlink()
    with pytest.raises(StixflowError, match="counts"):
        archive.lightcurves(DAYS[1], "2022-06-17")["counts"].load()


def test_a_store_that_was_removed_is_a_defect_a_clear_error_and_built_again(
    archive_copy: Path, processed: Path
) -> None:
    archive = open_archive(archive_copy)
    day = archive.catalog.current("ql_lightcurve", DAYS[1])
    assert day is not None
    shutil.rmtree(archive_copy / day.path)
    assert [day.path in str(defect) for defect in archive.verify()] == [True]
    with pytest.raises(StixflowError, match="Do:"):
        archive.lightcurves(DAYS[1], "2022-06-17")["counts"].load()
    report = process(archive_copy)
    assert report["counts"] == {"ql_lightcurve": 1, "flares": 1, "days_searched": 1}
    assert set(report["balance"].values()) == {0}
    assert same_for_readers(archive_copy, processed)
    assert archive.verify() == []


def test_a_map_that_was_removed_is_made_again(archive_copy: Path, processed: Path) -> None:
    archive = open_archive(archive_copy)
    (archive_copy / archive.images()["path"][2]).unlink()
    assert process(archive_copy)["counts"] == {"flares_imaged": 1, "images": 8}
    assert same_for_readers(archive_copy, processed)


# Two runs at once ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "call"), [("register_file", 2), ("together", 1), ("together", 2), ("together", 4)])
def test_two_runs_at_once_publish_everything_once(
    delivery: Path, processed: Path, tmp_path: Path, method: str, call: int
) -> None:
    """A whole second run happens inside the first: who comes later is told, and what readers see is right."""
    root = tmp_path / "archive"
    original = getattr(Catalog, method)
    calls = iter(range(1, 1000))

    def overtaken(self: Catalog, *arguments: object, **options: object) -> object:
        if next(calls) == call:
            process(root, delivery)
        return original(self, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Catalog, method, overtaken)
        report = process(root, delivery)
    assert all("as when this run began" in note["error"] for note in report["failed"])
    assert same_for_readers(root, processed)
    assert not process(root, delivery)["failed"]
    assert same_for_readers(root, processed)
    files = open_archive(root).files()
    assert files["packets_in"].sum() == files["used"].sum() == len(telemetry(delivery))


def test_an_archive_without_its_catalog_is_made_anew_from_its_packets(processed: Path, tmp_path: Path) -> None:
    report = process(tmp_path / "archive", processed / "packets")
    assert not report["failed"]
    assert same_for_readers(tmp_path / "archive", processed)
