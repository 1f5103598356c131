"""Official level-1 files against their own columns and the truth of a synthetic one."""

import numpy as np
import pytest
from astropy.io import fits
from numpy.testing import assert_allclose, assert_array_equal

from stixflow.cubes.check import check_dataset
from stixflow.errors import InputFileError, MissingFile
from stixflow.fits import read_level1
from stixflow.instrument import actual_edges, energy_edges, live_fraction, live_fraction_error, per_detector
from stixflow.time import scet_to_utc

L1A_CURVE = "data/lightcurves/solo_L1A_stix-ql-lightcurve_20210606_010104_V01.fits"
V01_CURVE = "data/l1/solo_L1_stix-ql-lightcurve_20200506_V01.fits"
RAW = "data/l1/solo_L1_stix-sci-xray-rpd_20200505T235959-20200506T000019_V01_0087031808-50882.fits"
FLARE_2020 = "data/flare_20200607/solo_L1_stix-sci-xray-cpd_20200607T213709-20200607T215208_V01_1178428688-49155.fits"
FLARE_2022 = (
    "data/flares_202211/pixel_data/solo_L1_stix-sci-xray-cpd_20221109T004455-20221109T005311_V01_2211090305-54678.fits"
)
SYNTHETIC = "oracle/imaging/synth_solo_L1_stix-sci-xray-cpd_20240310T120000_V02.fits"
L1A_SPECTROGRAM = (
    "data/spectrograms/solo_L1A_stix-sci-spectrogram-2102140001_20210214T014006-20210214T015515_008648_V01.fits"
)
V01_SPECTROGRAM = (
    "data/spectrograms/solo_L1_stix-sci-xray-spec_20220208T212353-20220208T223255_V01_2202080003-58150.fits"
)
V02_SPECTROGRAM = (
    "data/spectrograms/solo_L1_stix-sci-xray-spec_20230319T175504-20230320T000014_V02_2303197888-65462.fits"
)

READABLE = {
    L1A_CURVE: ("ql_lightcurve", 16802, 5),
    V01_CURVE: ("ql_lightcurve", 21516, 5),
    RAW: ("sci_pixels", 5, 32),
    "data/l1/solo_L1_stix-sci-xray-cpd_20200505T235959-20200506T000019_V01_0087031809-50883.fits": (
        "sci_pixels",
        5,
        32,
    ),
    "data/l1/solo_L1_stix-sci-xray-cpd_20240308T193915-20240308T203235_V02_2403087339-57240.fits": (
        "sci_pixels",
        1,
        32,
    ),
    "data/flare_20200607/solo_L1_stix-sci-xray-cpd_20200607T003001-20200607T012900_V01_1178082832-49778.fits": (
        "sci_pixels",
        1,
        17,
    ),
    FLARE_2020: ("sci_pixels", 45, 18),
    FLARE_2022: ("sci_pixels", 8, 17),
    SYNTHETIC: ("sci_pixels", 20, 32),
    L1A_SPECTROGRAM: ("sci_spectrogram", 64, 20),
    V01_SPECTROGRAM: ("sci_spectrogram", 1470, 20),
    V02_SPECTROGRAM: ("sci_spectrogram", 2729, 32),
    "data/l1/solo_L1_stix-sci-xray-spec_20200505T235959-20200506T000019_V01_0087031812-50886.fits": (
        "sci_spectrogram",
        5,
        32,
    ),
}


@pytest.mark.parametrize("name", READABLE)
def test_every_generation_follows_the_data_model_and_keeps_all_counts(shared, name):
    dataset = read_level1(shared / name)
    check_dataset(dataset)
    product, times, energies = READABLE[name]
    assert (dataset.attrs["product"], dataset.sizes["time"], dataset.sizes["energy"]) == (product, times, energies)
    assert dataset.attrs["source_file"] == (shared / name).name
    with fits.open(shared / name) as hdus:
        assert int(dataset["counts"].sum()) == int(hdus["DATA"].data["counts"].sum(dtype=float))
        assert int(dataset["triggers"].sum()) == int(hdus["DATA"].data["triggers"].sum(dtype=float))


def test_all_real_flares_of_november_2022(shared):
    paths = sorted((shared / "data/flares_202211/pixel_data").glob("*.fits"))
    assert len(paths) == 69
    for path in paths[::6]:
        dataset = read_level1(path)
        check_dataset(dataset)
        with fits.open(path) as hdus:
            raw = hdus["DATA"].data["counts"]
            n_pixels = raw.shape[2]
            assert_array_equal(dataset["counts"].values[..., :n_pixels], raw.transpose(0, 3, 1, 2))
        assert (dataset["counts"].values[..., n_pixels:] == 0).all()
        assert set(dataset["pixel_mask"].values.tolist()) == {0xFFF if n_pixels == 12 else 0xFF}


def test_light_curve_of_the_data_centre(shared):
    curve = read_level1(shared / L1A_CURVE)
    assert curve["counts"].values[0].tolist() == [271, 49, 67, 799, 463]
    assert curve["energy_low"].values.tolist() == [4, 10, 15, 25, 50]
    assert curve["channel_stop"].values.tolist() == [7, 12, 17, 23, 28]
    assert set(curve["detector_mask"].values.tolist()) == {0xFFFFFCFF}
    assert set(curve["counts_skm"].values.tolist()) == {0x053}
    assert curve["time_start"].values[0] == np.datetime64("2021-06-06T05:19:51.007", "ns")  # DATE_OBS
    # Half a bin later on a clock that loses 1.7 us a second.
    assert abs(curve["time"].values[0] - np.datetime64("2021-06-06T05:19:53.007", "ns")) < np.timedelta64(4, "us")
    assert curve["scet"].values[0] == (676271921 << 16) | 59039
    assert curve["scet"].values[580] == curve["scet"].values[0] + 2320 * 65536 - 2


@pytest.mark.parametrize("name", [L1A_CURVE, V01_CURVE])
def test_onboard_time_of_light_curves_agrees_with_utc(shared, name):
    curve = read_level1(shared / name)
    apart = (scet_to_utc(curve["scet"].values) - curve["time_start"].values) / np.timedelta64(1, "ms")
    # The beginning is that of the header, 14 ms from the anchors in 2020; from there on it is one clock.
    assert np.abs(apart).max() < 20
    assert np.ptp(apart) < 1e-3
    assert (np.diff(curve["scet"].values) > 3.8 * 65536).all()


@pytest.mark.parametrize(
    "name", [V01_CURVE, "data/l1/solo_L1_stix-hk-maxi_20200501_V01.fits", L1A_CURVE, V02_SPECTROGRAM]
)
def test_the_end_of_a_file_is_when_its_header_says(shared, name):
    """Files of version 01 and 02 count onboard seconds, L1A those of UTC: the last time is UTC in each."""
    cube = read_level1(shared / name)
    with fits.open(shared / name) as hdus:
        data, head = hdus["DATA"].data, hdus[0].header
        begin, end = (
            np.datetime64(head[k] if k in head else head[k.replace("-", "_")]) for k in ("DATE-BEG", "DATE-END")
        )
        counted = float(np.max(data["time"] + data["timedel"] / 2))
    last = cube["time_start"].values[-1] if "time_start" in cube else cube["time"].values[-1]
    width = cube["timedel"].values[-1] if "timedel" in cube else 0.0
    late = (end - last) / np.timedelta64(1, "us") / 1e6 - width
    seconds = counted * (1 if "L1A" in name else 0.01)
    drift = (end - begin) / np.timedelta64(1, "us") / 1e6 - seconds
    assert abs(late) < 0.012
    if "L1A" not in name:
        assert drift == pytest.approx(1.65e-6 * seconds, abs=0.012)


def test_the_first_files_count_from_their_first_bin(shared):
    """Their time column counts from another moment, two days off; telemetry of the request says when it was."""
    found = read_level1(shared / "data/l1/solo_L1_stix-sci-xray-l3-87031827_20200508T011207_V01.fits")
    starts = found["time_start"].values - np.datetime64("2020-05-05T23:59:59.531", "ns")
    assert np.abs(starts / np.timedelta64(1, "s") - [0, 4, 8, 12, 16]).max() < 0.06
    assert found["scet"].values[0] == (642038387 << 16) + 13096


def test_first_packet_of_a_day_may_be_cut(shared):
    curve = read_level1(shared / V01_CURVE)
    # packet 6 begins 40 s before the first row of the file, which is its 11th sample
    with fits.open(shared / V01_CURVE) as hdus:
        control = hdus["CONTROL"].data[6]
        packet = (int(control["scet_coarse"]) << 16) + int(control["scet_fine"])
    assert curve["scet"].values[0] == packet + 40 * 65536


def test_pixel_data_of_2020_are_trimmed_to_the_channels_sent(shared):
    flare = read_level1(shared / FLARE_2020)
    assert flare["channel_start"].values.tolist() == list(range(1, 19))
    # the energy table of these files says 16-17 keV for the channel 16-18 keV
    assert_array_equal(flare["energy_high"].values, energy_edges()[2:20])
    with fits.open(shared / FLARE_2020) as hdus:
        raw = hdus["DATA"].data["counts"]
        assert_array_equal(flare["counts"].values[3, 5], raw[3, :, :, 5])
    assert flare.attrs["request_id"] == 1178428688
    assert flare.attrs["seq_control"] == 49155
    assert flare.attrs["bin_shift"] == "possible"
    assert flare.attrs["hgln_deg"] == pytest.approx(46.48)


def test_both_versions_of_one_request_are_equal(shared):
    old = read_level1(shared / FLARE_2020)
    new = read_level1((shared / FLARE_2020).with_name("8pixel_" + (shared / FLARE_2020).name))
    for name in old.variables:
        assert_array_equal(old[name].values, new[name].values, err_msg=str(name))


def test_raw_pixel_data_are_uncompressed(shared):
    assert (read_level1(shared / RAW)["counts_skm"] == 0).all()


def test_times_are_centres_in_hundredths_of_a_second(shared):
    flare = read_level1(shared / FLARE_2020)
    start = np.datetime64("2020-06-07T21:37:09.684", "ns")
    centre = flare["time"].values[0] - start - np.timedelta64(10050, "ms")
    assert abs(centre) < np.timedelta64(21, "us")  # 10 s of a clock that loses 1.7 us a second, whole ticks
    assert flare["time_start"].values[0] == start
    assert_allclose(flare["timedel"].values[:3], [20.1, 19.3, 19.8])
    assert flare["scet"].values[0] == (644881012 << 16) + 39321


def test_overflow_bin(shared):
    spectrogram = read_level1(shared / V02_SPECTROGRAM)
    last = spectrogram.isel(energy=-1)
    assert (float(last["energy"]), float(last["energy_low"]), float(last["energy_high"])) == (150, 150, np.inf)


def test_spectrogram_of_the_data_centre_keeps_masks_of_the_file_in_time(shared):
    spectrogram = read_level1(shared / L1A_SPECTROGRAM)
    assert spectrogram["channel_start"].values[[0, -1]].tolist() == [1, 20]
    assert spectrogram["triggers_skm"].values[0] == 0x044
    assert spectrogram["counts"].values[0, :3].tolist() == [367, 135, 107]
    assert spectrogram.attrs["ssid"] == 24


def test_synthetic_pixel_data_equal_their_truth(shared):
    truth = np.load(shared / "oracle/imaging/synth_cpd_truth.npz")
    data = read_level1(shared / SYNTHETIC)
    assert_array_equal(data["counts"].values, truth["decompressed"].transpose(0, 3, 1, 2))
    assert_array_equal(data["triggers"].values, truth["triggers"])
    assert_allclose(data["timedel"].values, truth["timedel_s"])
    triggers, width = data["triggers"].values, data["timedel"].values[:, None]
    live, noise = live_fraction(triggers, width), live_fraction_error(triggers, 0.0, width)
    # the truth is before noise and compression, which moves the triggers by up to 1/16
    apart = np.abs(per_detector(live) - truth["livefrac"])
    assert (apart <= (1 - truth["livefrac"]) / 16 + 4 * per_detector(noise)).all()


def test_energy_tables_equal_those_of_the_synthetic_data(shared):
    truth = np.load(shared / "oracle/imaging/synth_cpd_truth.npz")
    edges = actual_edges(read_level1(shared / SYNTHETIC)["time"].values[0])
    assert_allclose(edges[..., 1:-1], truth["e_edges_actual"], rtol=1e-12)


def test_other_products_are_refused_by_name(shared):
    with pytest.raises(InputFileError, match=r"OSPEX spectrum .*not read .*Expected: a level-1 product"):
        read_level1(shared / "data/spectrograms/stx_spectrum_20210908_1712.fits")


def test_repeated_times_are_refused(shared):
    with pytest.raises(InputFileError, match="same time"):
        read_level1(shared / "data/l1/solo_L1_stix-sci-spectrogram-88217860_20200508T082937_V01.fits")


def _spoil(path, target, change):
    with fits.open(path) as hdus:
        change(hdus)
        hdus.writeto(target)
    return target


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda hdus: hdus[0].header.update(TELESCOP="SDO/AIA", INSTRUME="AIA_3"), "SDO/AIA"),
        (lambda hdus: hdus.pop("ENERGIES"), "no table ENERGIES"),
        (lambda hdus: hdus["DATA"].columns.change_name("timedel", "width"), "no column timedel"),
        (lambda hdus: hdus["CONTROL"].data["index"].__setitem__(0, 7), "without their row in CONTROL"),
        (lambda hdus: hdus["CONTROL"].data["energy_bin_mask"].__setitem__((0, 3), 0), "18 energies"),
        (lambda hdus: hdus["DATA"].columns["time"].__setattr__("unit", "min"), "'min'"),
    ],
)
def test_damaged_files_are_refused_with_what_is_wrong(shared, tmp_path, change, message):
    with pytest.raises(InputFileError, match=message):
        read_level1(_spoil(shared / FLARE_2020, tmp_path / "spoiled_stix-sci-xray-cpd.fits", change))


def test_a_file_cut_short(shared, tmp_path):
    whole = (shared / FLARE_2022).read_bytes()
    for size in (len(whole) // 2, 2880, 100, 0):
        path = tmp_path / f"solo_L1_stix-sci-xray-cpd_{size}.fits"
        path.write_bytes(whole[:size])
        with pytest.raises(InputFileError):
            read_level1(path)


def test_no_file_and_no_fits(tmp_path):
    with pytest.raises(MissingFile):
        read_level1(tmp_path / "nothing.fits")
    (tmp_path / "text.fits").write_text("no FITS at all\n" * 1000)
    with pytest.raises(InputFileError, match="not a FITS file"):
        read_level1(tmp_path / "text.fits")
