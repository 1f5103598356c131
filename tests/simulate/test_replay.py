"""Official files as telemetry: the packets are those of the instrument, and the cubes equal the files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from astropy.io import fits

from stixflow.cubes.build import build_day, build_requests
from stixflow.errors import InputFileError, MissingFile, UsageError
from stixflow.fits import read_level1
from stixflow.simulate import packetise, replay
from stixflow.telemetry import decode, read_packets


def flare_files(shared: Path) -> list[Path]:
    return sorted((shared / "data" / "flares_202211" / "pixel_data").glob("*.fits"))


def spectrogram_files(shared: Path) -> list[Path]:
    return sorted((shared / "data" / "spectrograms").glob("*sci*.fits"))


def assert_same_data(built: xr.Dataset, official: xr.Dataset) -> None:
    for name in ("counts", "triggers", "rcr", "detector_mask", "pixel_mask", "counts_skm", "triggers_skm"):
        np.testing.assert_array_equal(built[name].values, official[name].values, err_msg=name)
    for name in ("channel_start", "channel_stop", "energy_low", "energy_high"):
        np.testing.assert_array_equal(built[name].values, official[name].values, err_msg=name)
    np.testing.assert_allclose(built["timedel"].values, official["timedel"].values, rtol=0, atol=1e-9)


def test_the_light_curve_of_2021_06_06(shared: Path, tmp_path: Path) -> None:
    (path,) = (shared / "data" / "lightcurves").glob("*20210606*.fits")
    (written,) = replay([path], tmp_path)
    assert written.name == f"{path.stem}_PktTmRaw.xml"
    packets = read_packets(tmp_path)
    # 29 packets brought these data down.
    assert len(packets) == len(fits.getdata(path, "CONTROL")) == 29
    built, official = build_day("ql_lightcurve", decode(packets)["ql_lightcurve"]), read_level1(path)
    assert_same_data(built, official)
    np.testing.assert_array_equal(built["scet"].values, official["scet"].values)
    # The official times were converted by another clock kernel.
    assert np.abs(built["time"].values - official["time"].values).max() < np.timedelta64(50, "ms")


def test_every_flare_and_spectrogram(shared: Path, tmp_path: Path) -> None:
    files = flare_files(shared) + spectrogram_files(shared)
    assert len(files) >= 73
    said: list[str] = []
    written = replay(files, tmp_path, container="binary", progress=said.append)
    assert said == [path.name for path in files]
    for path, telemetry in zip(files, written, strict=True):
        packets = read_packets(telemetry)
        ((product, records),) = decode(packets).items()
        (request,) = build_requests(records)
        # One file (2208301654) has bins that overlap the next by half a minute: they come back as a second box.
        assert len(request.datasets) == (2 if "2208301654" in path.name else 1)
        built = xr.concat(request.datasets, "time", data_vars="minimal").sortby("scet")
        official = read_level1(path)
        assert request.complete, path.name
        assert built.attrs["product"] == official.attrs["product"] == product
        assert_same_data(built, official)
        for name in ("request_id", "seq_control"):
            assert built.attrs[name] == official.attrs[name]
        assert np.abs(built["scet"].values - official["scet"].values).max() <= 1, path.name


def test_packets_are_cut_as_on_board(shared: Path) -> None:
    files = flare_files(shared)[::7] + [path for path in spectrogram_files(shared) if "_L1_" in path.name]
    for path in files:
        records, _ = packetise(read_level1(path), tolerance_ticks=2)
        control = fits.getdata(path, "CONTROL")
        assert records["num_substructures"].tolist() == control["num_substructures"].ravel().tolist(), path.name


def test_the_container_is_checked_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="container 'hex'"):
        replay([tmp_path / "no.fits"], tmp_path, container="hex")  # type: ignore[arg-type]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match=r"no\.fits"):
        replay([tmp_path / "no.fits"], tmp_path)


def test_times_off_the_raster_are_named_with_the_file(shared: Path, tmp_path: Path) -> None:
    path = next(path for path in flare_files(shared) if "2211095251" in path.name)
    copy = tmp_path / path.name
    with fits.open(path) as hdus:
        hdus["DATA"].data["time"][5] += 4
        hdus.writeto(copy)
    with pytest.raises(InputFileError, match=r"2211095251-54685\.fits: bin starts up to \d+ ticks"):
        replay([copy], tmp_path)
