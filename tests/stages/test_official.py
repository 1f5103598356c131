"""Official files as inputs: the cubes are those of telemetry, and of several files of the same the right one counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from astropy.io import fits
from example_delivery import DAYS, pick, process, telemetry, write

from stixflow.archive import Archive, Partition, open_archive
from stixflow.cubes.store import open_store
from stixflow.fits import read_level1, write_level1
from stixflow.simulate import replay
from stixflow.stages.exporting import export_files
from stixflow.time import scet_to_utc, utc_to_scet

CUBES = ("ingest", "cubes")
DAY = "2020-05-06"
NOT_TELEMETRY = ("cal-energy", "20200508")
"""A calibration file that spreads its points over 1024 channels, so that no packet gives its counts; the first files,
whose visibilities are empty."""


def cubes_of(root: Path) -> dict[tuple[str, str, int], xr.Dataset]:
    archive = open_archive(root)
    found = {
        (item.product, item.key, box): open_store(archive.url(item.path), box, digest=item.digest).load()
        for item in archive.catalog.partitions()
        for box in range(item.boxes)
    }
    archive.close()
    return found


def current(root: Path, product: str, key: str) -> Partition:
    archive: Archive = open_archive(root)
    found = archive.catalog.current(product, key)
    archive.close()
    assert found is not None
    return found


def assert_same(one: xr.Dataset, other: xr.Dataset, *, ticks: int = 0, ms: float = 1e-3) -> None:
    """Equal in every variable, to the type; UTC by one clock each, so that all times are the same time apart."""
    assert set(one.variables) == set(other.variables)
    for name in one.variables:
        a, b = one[name].values, other[name].values
        assert a.dtype == b.dtype, name
        assert a.shape == b.shape, name
        if a.dtype.kind == "M":
            apart = (a - b) / np.timedelta64(1, "ms")
            assert np.ptp(apart) <= ms + ticks / 65.536, name
            assert np.abs(apart).max() < 60.0, name
        elif name == "scet":
            assert np.abs(a - b).max() <= ticks
        else:
            np.testing.assert_array_equal(a, b, err_msg=str(name))


# The real day ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_day(
    shared: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any], Path, dict[str, Any]]:
    paths = [
        path
        for path in sorted((shared / "data/l1").glob("*.fits"))
        if not any(part in path.name for part in NOT_TELEMETRY)
    ]
    folder = tmp_path_factory.mktemp("day")
    sent = replay(paths, folder / "telemetry", container="binary")
    by_file = process(folder / "files", *paths, stages=CUBES)
    by_packet = process(folder / "packets", *sent, stages=CUBES)
    return folder / "files", by_file, folder / "packets", by_packet


def test_both_ways_give_the_same_cubes(real_day: tuple[Path, dict[str, Any], Path, dict[str, Any]]) -> None:
    root, report, of_packets, _ = real_day
    assert not report["failed"]
    ours, theirs = cubes_of(root), cubes_of(of_packets)
    assert ours.keys() == theirs.keys()
    assert {product for product, _, _ in ours} == {
        *("ql_lightcurve", "ql_background", "ql_spectra", "ql_variance", "ql_flareflag", "tm_status", "hk_maxi"),
        *("sci_pixels", "sci_pixel_sums", "sci_spectrogram"),
    }
    for key in ours:
        assert_same(ours[key], theirs[key])


def test_the_books_of_files(real_day: tuple[Path, dict[str, Any], Path, dict[str, Any]]) -> None:
    root, report, of_packets, by_packet = real_day
    books = report["official"]
    assert set(report["balance"].values()) == {0}
    assert books["bins"] == books["used"]
    assert books["counts"] == books["counts_used"]
    assert (books["repeated"], books["replaced"]) == (0, 0)
    assert books["files"] == 12
    assert set(by_packet["official"].values()) == {0}
    for name in (root, of_packets):
        assert open_archive(name).verify() == []


def test_a_cube_says_what_it_came_from(real_day: tuple[Path, dict[str, Any], Path, dict[str, Any]]) -> None:
    cube = cubes_of(real_day[0])["ql_lightcurve", DAY, 0]
    assert cube.attrs["source_files"] == ["solo_L1_stix-ql-lightcurve_20200506_V01.fits"]
    assert cube.attrs["made_from"] == "official level-1 files"
    assert cube.attrs["clock"] == "level-1 header"
    assert cube["time_start"].values[0] == np.datetime64("2020-05-05T23:59:59.531", "ns")


def test_files_are_dated_anew_by_a_clock_kernel(shared: Path, tmp_path: Path) -> None:
    from stixflow.compute import Serial
    from stixflow.ephemeris import read_clock
    from stixflow.stages import Science, run_stages

    pytest.importorskip("spiceypy", reason="needs the extra spice")
    kernels = [str(shared / "data/spice" / name) for name in ("naif0012.tls", "solo_ANC_soc-sclk_20200611_V01.tsc")]
    path = shared / "data/l1/solo_L1_stix-ql-lightcurve_20200506_V01.fits"
    process(tmp_path / "a", path, stages=CUBES)
    for redate, built in ((False, 0), (True, 1), (True, 0)):
        report = run_stages(
            CUBES[1:],
            [],
            root=str(tmp_path / "a"),
            pool=Serial(),
            command="test",
            science=Science(clock_kernels=kernels, redate=redate),
        )
        assert report["counts"].get("ql_lightcurve", 0) == built
    cube = cubes_of(tmp_path / "a")["ql_lightcurve", DAY, 0]
    assert cube.attrs["clock"] == read_clock(kernels).name
    np.testing.assert_array_equal(cube["time_start"].values, read_clock(kernels).utc(cube["scet"].values))


def test_calibration_runs_of_one_file_are_partitions_of_their_own(shared: Path, tmp_path: Path) -> None:
    report = process(tmp_path / "a", shared / "data/l1/solo_L1_stix-cal-energy_20200506_V01.fits", stages=CUBES)
    assert report["counts"] == {"files": 1, "cal_spectrum": 2}
    found = open_archive(tmp_path / "a").calibrations()
    assert sorted(found["key"]) == ["642101552-45599", "642101903-49104"] or len(found) == 2
    assert found["counts"].sum() == report["official"]["counts"]


# Made files -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(processed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every official file of the simulated delivery."""
    folder = tmp_path_factory.mktemp("exported")
    for product in ("ql_lightcurve", "sci_pixels", "sci_spectrogram"):
        export_files(str(processed), folder, product=product)
    return folder


@pytest.fixture(scope="module")
def from_files(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("from_files") / "archive"
    report = process(root, exported, stages=CUBES)
    assert not report["failed"]
    assert report["official"]["counts"] == report["official"]["counts_used"]
    return root


def test_export_and_ingest_give_the_same_cubes(processed: Path, from_files: Path) -> None:
    ours, theirs = cubes_of(from_files), cubes_of(processed)
    assert ours.keys() == {key for key in theirs if key[0] != "ephemeris"}
    for key in ours:
        assert_same(ours[key], theirs[key], ticks=0 if key[0].startswith("ql") else 2)


def test_flares_and_images_come_from_files_too(
    from_files: Path, processed: Path, tmp_path: Path, delivery: Path
) -> None:
    import shutil

    root = Path(shutil.copytree(from_files, tmp_path / "archive"))
    process(root, delivery / "ephemeris")
    ours, theirs = (open_archive(name).catalog.flares() for name in (root, processed))
    assert [row["flare_id"] for row in ours] == [row["flare_id"] for row in theirs]
    assert len(open_archive(root).catalog.images()) == len(open_archive(processed).catalog.images()) > 0


def test_a_file_is_taken_once(from_files: Path, exported: Path, tmp_path: Path) -> None:
    import shutil

    root = Path(shutil.copytree(from_files, tmp_path / "archive"))
    report = process(root, exported, stages=CUBES)
    assert report["counts"] == {}
    assert set(report["official"].values()) == {0}


CURVE = "solo_L1_stix-ql-lightcurve_20220616_V02.fits"


def curve(exported: Path) -> xr.Dataset:
    return read_level1(exported / CURVE)


def again(cube: xr.Dataset, folder: Path, version: str, **changes: Any) -> Path:
    """Write a light curve as another version of its file."""
    folder.mkdir(exist_ok=True)
    return write_level1(
        folder, cube.assign(**{k: (cube[k].dims, v, cube[k].attrs) for k, v in changes.items()}), version=version
    )


@pytest.mark.parametrize("order", [("V01", "V03"), ("V03", "V01")])
def test_the_last_version_counts_whatever_came_first(exported: Path, tmp_path: Path, order: tuple[str, str]) -> None:
    cube = curve(exported)
    for version in order:
        rcr = np.full(cube.sizes["time"], int(version[-1]), dtype=np.uint8)
        report = process(tmp_path / "a", again(cube, tmp_path / "files", version, rcr=rcr), stages=CUBES)
        assert not report["failed"]
    assert report["official"]["replaced"] == (cube.sizes["time"] if order[-1] == "V03" else 0)
    found = cubes_of(tmp_path / "a")["ql_lightcurve", DAYS[1], 0]
    assert set(found["rcr"].values.tolist()) == {3}


def test_a_later_version_may_have_fewer_bins_and_says_so(exported: Path, tmp_path: Path) -> None:
    cube = curve(exported)
    process(tmp_path / "a", again(cube, tmp_path / "files", "V01"), stages=CUBES)
    report = process(tmp_path / "a", again(cube.isel(time=slice(0, -10)), tmp_path / "files", "V02"), stages=CUBES)
    assert not report["failed"]
    item = current(tmp_path / "a", "ql_lightcurve", DAYS[1])
    assert item.n_time == cube.sizes["time"] - 10
    assert "V02.fits, before of" in item.shrink_reason


def test_level_1_goes_before_pieces_of_the_data_centre(exported: Path, tmp_path: Path) -> None:
    """Pieces of L1A fill a day together, each time once, until its level-1 file comes."""
    cube, n = curve(exported), curve(exported).sizes["time"]
    pieces = [cube.isel(time=slice(0, n // 2 + 5)), cube.isel(time=slice(n // 2 - 5, n))]
    for number, piece in enumerate(pieces):
        path = again(piece, tmp_path, f"V0{number + 1}")
        with fits.open(path, mode="update", checksum=True) as hdus:
            hdus[0].header["LEVEL"] = "L1A"
        report = process(tmp_path / "a", path, stages=CUBES)
    assert report["official"]["repeated"] == 10
    assert_same(cubes_of(tmp_path / "a")["ql_lightcurve", DAYS[1], 0], cube.drop_attrs(), ms=1.0)
    report = process(tmp_path / "a", exported / CURVE, stages=CUBES)
    assert report["official"]["replaced"] == n + 10
    assert cubes_of(tmp_path / "a")["ql_lightcurve", DAYS[1], 0].attrs["source_files"] == [CURVE]


def test_a_file_over_midnight_goes_to_both_days(exported: Path, tmp_path: Path) -> None:
    days = [read_level1(path) for path in sorted(exported.glob("*ql-lightcurve*"))]
    whole = xr.concat(days, dim="time", data_vars="minimal", coords="minimal", combine_attrs="override")
    path = write_level1(tmp_path / "solo_L1_stix-ql-lightcurve_night_V01.fits", whole)
    report = process(tmp_path / "a", path, stages=CUBES)
    assert report["counts"] == {"files": 1, "ql_lightcurve": 2}
    assert report["official"]["bins"] == report["official"]["used"] == whole.sizes["time"]
    found = cubes_of(tmp_path / "a")
    assert [key[1] for key in found] == list(DAYS)
    for key, cube in found.items():
        assert set(cube["time"].values.astype("datetime64[D]").astype(str)) == {key[1]}
    assert sum(int(cube["counts"].sum()) for cube in found.values()) == int(whole["counts"].sum())


def test_the_file_of_a_neighbour_lends_what_the_file_of_the_day_does_not_have(exported: Path, tmp_path: Path) -> None:
    first, second = (read_level1(path) for path in sorted(exported.glob("*ql-lightcurve*")))
    late = xr.concat(
        [first, second.isel(time=slice(0, 30))],
        dim="time",
        data_vars="minimal",
        coords="minimal",
        combine_attrs="override",
    )
    process(tmp_path / "a", again(late, tmp_path / "night", "V02"), stages=CUBES)
    cut = again(second.isel(time=slice(10, None)), tmp_path / "day", "V02")
    report = process(tmp_path / "a", cut, stages=CUBES)
    assert (report["official"]["used"], report["official"]["repeated"]) == (second.sizes["time"], 20)
    found = cubes_of(tmp_path / "a")["ql_lightcurve", DAYS[1], 0]
    assert found.attrs["source_files"] == [cut.name, late_name(tmp_path)]
    assert found.attrs["books"]["repeated_bins"] == 20
    assert_same(found, second, ms=1.0)


def late_name(folder: Path) -> str:
    (path,) = (folder / "night").iterdir()
    return path.name


# Packets and files ----------------------------------------------------------------------------------------------------


def test_packets_win_when_they_are_all_there(exported: Path, delivery: Path, processed: Path, tmp_path: Path) -> None:
    """Half the packets of a day leave the file in place; with the rest they take it, and only that partition."""
    root, packets = tmp_path / "a", telemetry(delivery)
    process(root, exported, stages=CUBES)
    before = {key: cube.attrs for key, cube in cubes_of(root).items()}
    light = packets.of_product("ql_lightcurve")
    on_day = scet_to_utc(light.scet).astype("datetime64[D]").astype(str) == DAYS[1]
    rows = np.flatnonzero(on_day)
    report = process(root, write(tmp_path / "half.bin", pick(light, rows[rows.size // 2 :])), stages=CUBES)
    assert not report["failed"]
    assert any("left as it is until more of its packets come" in note["reason"] for note in report["skipped"])
    assert cubes_of(root)["ql_lightcurve", DAYS[1], 0].attrs == before["ql_lightcurve", DAYS[1], 0]
    assert process(root, stages=CUBES[1:])["skipped"] == []
    report = process(root, write(tmp_path / "all.bin", light), stages=CUBES)
    assert report["counts"]["ql_lightcurve"] == 2
    assert report["official"]["replaced"] > 0
    found, truth = cubes_of(root), cubes_of(processed)
    for key, cube in found.items():
        if key[0] == "ql_lightcurve":
            assert cube.attrs["clock"] == "anchor table"
            assert "made_from" not in cube.attrs
            xr.testing.assert_identical(cube.drop_attrs(), truth[key].drop_attrs())
        else:
            assert cube.attrs == before[key]


def test_files_do_not_replace_packets(exported: Path, archive_copy: Path) -> None:
    before = {key: cube.attrs for key, cube in cubes_of(archive_copy).items()}
    report = process(archive_copy, exported, stages=CUBES)
    assert not report["failed"]
    assert set(report["counts"]) == {"files"}
    assert {key: cube.attrs for key, cube in cubes_of(archive_copy).items()} == before


def test_a_lost_store_of_a_file_is_made_again(exported: Path, delivery: Path, tmp_path: Path) -> None:
    """Also where packets came since that are fewer."""
    import shutil

    root = tmp_path / "a"
    process(root, exported / CURVE, stages=CUBES)
    light = telemetry(delivery).of_product("ql_lightcurve")
    process(root, write(tmp_path / "some.bin", pick(light, [len(light) - 2])), stages=CUBES)
    item = current(root, "ql_lightcurve", DAYS[1])
    shutil.rmtree(root / item.path)
    report = process(root, stages=CUBES[1:])
    assert report["counts"]["ql_lightcurve"] == 1
    assert current(root, "ql_lightcurve", DAYS[1]).digest == item.digest


# Files that cannot be used --------------------------------------------------------------------------------------------


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30000])


def _edit(change: Callable[[Any], None]) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        with fits.open(path, mode="update") as hdus:
            change(hdus)

    return spoil


def _patch(old: bytes, new: bytes) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        data = path.read_bytes()
        assert old in data
        path.write_bytes(data.replace(old, new, 1))

    return spoil


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def _empty(hdus: Any) -> None:
    hdus["DATA"] = fits.BinTableHDU(hdus["DATA"].data[:0], name="DATA")


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "cut short": (_cut, "is cut short"),
    "no bytes": (lambda path: path.write_bytes(b""), "empty"),
    "no rows": (_edit(_empty), "holds no data"),
    "another product": (_edit(lambda hdus: hdus[0].header.update(SSID=99, FILENAME="x")), "not read"),
    "another telescope": (_edit(lambda hdus: hdus[0].header.update(TELESCOP="GOES", INSTRUME="XRS")), "GOES"),
    "level 0": (_edit(lambda hdus: hdus[0].header.update(LEVEL="L0")), "level L0"),
    "a wrong century": (_edit(lambda hdus: hdus[0].header.update({"DATE-BEG": "1922-06-16T00:00:00"})), "1922"),
    "a column gone": (_edit(lambda hdus: hdus["DATA"].columns.change_name("rcr", "other")), "no column rcr"),
    "a flipped byte": (lambda path: _flip(path, -30000), "checksum"),
    "an edited header": (_patch(b"= '2022-06-16T", b"= '2022-06-17T"), "checksum"),
    "times that fall": (_edit(lambda hdus: hdus["DATA"].data["timedel"].__setitem__(slice(None), 0)), "same time"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_told_and_the_run_goes_on(case: str, exported: Path, tmp_path: Path) -> None:
    import shutil

    spoil, words = BAD[case]
    folder = tmp_path / "files"
    folder.mkdir()
    bad = Path(shutil.copy(exported / CURVE, folder / CURVE))
    shutil.copy(exported / CURVE.replace("0616", "0615"), folder)
    spoil(bad)
    report = process(tmp_path / "a", folder, stages=CUBES)
    assert not report["failed"]
    assert [words in note["reason"] for note in report["skipped"]] == [True], report["skipped"]
    assert report["counts"] == {"files": 1, "ql_lightcurve": 1}
    report = process(tmp_path / "a", bad, stages=CUBES)
    assert [words in note["error"] for note in report["failed"]] == [True]


def test_workers_take_files(exported: Path, tmp_path: Path) -> None:
    """Each file is one item of the fan-out, each partition another."""
    from stixflow.compute import Serial
    from stixflow.stages import run_stages

    seen: list[tuple[str, int]] = []
    paths: Sequence[Path] = sorted(exported.iterdir())
    run_stages(
        CUBES,
        paths,
        root=str(tmp_path / "a"),
        pool=Serial(),
        command="test",
        progress=lambda stage, done, total: seen.append((stage, total)) if done == 0 else None,
    )
    assert seen[0] == ("ingest", len(paths))
    assert utc_to_scet(np.datetime64("2022-06-16", "ns")) > 0


def test_an_archive_without_its_catalog_is_made_anew_from_its_files(from_files: Path, tmp_path: Path) -> None:
    """Under the names that their headers give, since the archive names them by their content."""
    report = process(tmp_path / "again", from_files / "packets", stages=CUBES)
    assert not report["failed"]
    ours, theirs = cubes_of(tmp_path / "again"), cubes_of(from_files)
    assert ours.keys() == theirs.keys()
    for key in ours:
        xr.testing.assert_identical(ours[key], theirs[key])


def test_a_file_says_what_memory_it_takes(exported: Path, tmp_path: Path) -> None:
    """Of a gzipped file that of its content, so that a worker is not given what it cannot hold."""
    import gzip
    import tracemalloc

    from stixflow.jobs import OfficialJob, keep_official
    from stixflow.stages.ingest import file_digest

    path = max(exported.iterdir(), key=lambda one: one.stat().st_size)
    packed = tmp_path / f"{path.name}.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    plain, small = (OfficialJob(str(one), file_digest(one), str(tmp_path / "a")) for one in (path, packed))
    assert plain.estimated_bytes == small.estimated_bytes > 2 * path.stat().st_size
    for job in (plain, small):
        tracemalloc.start()
        keep_official(job)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < job.estimated_bytes
