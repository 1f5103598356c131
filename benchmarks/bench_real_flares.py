"""Sixty real flares: official level-1 files to telemetry to cubes to positions, beside the operational list.

``python benchmarks/bench_real_flares.py [--json]`` needs the real data of November 2022 in ``../shared``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

import stixflow
from stixflow.archive import Archive
from stixflow.compute import Serial
from stixflow.ephemeris import Pointing, hpc_to_stix, observer, pointing, stix_to_hpc
from stixflow.imaging import Location, locate
from stixflow.simulate import replay
from stixflow.stages import run_stages
from stixflow.time import TimeRange

AROUND_PEAK = np.timedelta64(20, "s")


def process(folder: Path, output: Path) -> Archive:
    """Replay every pixel file of the folder as telemetry and ingest it with the ephemeris."""
    replay(sorted((folder / "pixel_data").glob("*.fits")), output / "delivery", container="binary")
    report = run_stages(
        ("ingest", "cubes"),
        [output / "delivery", folder / "ephemeris"],
        root=str(output / "archive"),
        pool=Serial(),
        command="replay of real flares",
    )
    books = report["balance"]
    if report["failed"] or books["packets_in"] != books["used"]:
        raise SystemExit(f"the replay was not processed: {report}")
    return stixflow.open_archive(output / "archive")


def locate_all(archive: Archive, folder: Path) -> pd.DataFrame:
    """Locate each listed flare whose file is there: 6-10 keV, peak +-20 s, no background, as the list was made.

    Returns
    -------
    One row per flare: differences to the list's STIX-frame peaks in arcsec, `dx`, `dy` of the back-projection peak and
    `fit_dx`, `fit_dy` of the fit; `hpc_dx`, `hpc_dy` of the fit to the forward fit of the ground software,
    helioprojective arcsec seen from the spacecraft, and its standard error `idl_sigma`; half a pixel of the list's map;
    and what the location says of itself.
    """
    flares = pd.read_csv(folder / "flarelist_with_paths.csv")
    listed = pd.read_csv(folder / "flare_locations_stix_frame.csv").set_index("flare ID")
    fitted = pd.read_csv(folder / "flare_locations.csv").set_index("flare ID")
    present = flares["pixel_paths"].map(lambda path: (folder / path).exists())
    rows = []
    for flare in flares[flares["flare_id"].isin(listed.index) & present].to_dict("records"):
        peak = np.datetime64(str(flare["peak_UTC"]).replace(" ", "T"), "ns")
        request_id = int(str(flare["pixel_paths"]).rsplit("_", 1)[1].split("-")[0])
        place, rsun, direction = _locate(archive, request_id, TimeRange(peak - AROUND_PEAK, peak + AROUND_PEAK))
        x, y = listed.loc[flare["flare_id"], ["STIX MAX X BP COORD", "STIX MAX Y BP COORD"]]
        hpc = stix_to_hpc((place.x, place.y), direction)
        idl = fitted.loc[flare["flare_id"]]
        rows.append(
            {
                "flare_id": flare["flare_id"],
                "dx": place.peak_x - x,
                "dy": place.peak_y - y,
                "fit_dx": place.x - x,
                "fit_dy": place.y - y,
                "hpc_dx": float(hpc[..., 0]) - idl["X flare loc"],
                "hpc_dy": float(hpc[..., 1]) - idl["Y flare loc"],
                "idl_sigma": float(np.hypot(idl["FWDFIT X SIGMA"], idl["FWDFIT Y SIGMA"])),
                "half_pixel": 2.6 * rsun / 512 / 2,
                "ambiguous": place.ambiguous,
                "sidelobe_ratio": place.sidelobe_ratio,
            }
        )
    return pd.DataFrame(rows)


def _locate(archive: Archive, request_id: int, span: TimeRange) -> tuple[Location, float, Pointing]:
    day = TimeRange.of_day(span.start.astype("datetime64[D]").item())
    ephemeris = archive.ephemeris(day.start, day.stop).load()
    rsun = observer(ephemeris, span.middle).rsun_arcsec
    direction = pointing(ephemeris, span)
    center = hpc_to_stix((0.0, 0.0), direction)
    place = locate(archive.pixels(request_id).load(), span, (6.0, 10.0), rsun_arcsec=rsun, center=center)
    return place, rsun, direction


def distances(located: pd.DataFrame) -> pd.Series:
    """Distance of each unambiguous location to the list once the list's constant half-pixel bias is removed, arcsec."""
    clear = located[~located["ambiguous"]]
    return np.hypot(clear["dx"] - clear["dx"].median(), clear["dy"] - clear["dy"].median())


def forward_fit_distances(located: pd.DataFrame, *, below: float = 0.9) -> pd.Series:
    """Distance of each location to the forward fit of the ground software, arcsec, for sidelobe ratios `below`."""
    clear = located[located["sidelobe_ratio"] < below].set_index("flare_id")
    return np.hypot(clear["hpc_dx"], clear["hpc_dy"])


def main() -> int:
    """Print the agreement with the list."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="the same: it takes half a minute")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parents[2] / "shared/data/flares_202211")
    options = parser.parse_args()
    if not options.folder.is_dir():
        sys.stdout.write(f"skipped: needs the real flares in {options.folder}\n")
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        started = time.process_time()
        archive = process(options.folder, Path(scratch))
        processed = time.process_time() - started
        located = locate_all(archive, options.folder)
    apart = distances(located)
    fit = forward_fit_distances(located)
    result = {
        "flares": len(located),
        "ambiguous": located.loc[located["ambiguous"], "flare_id"].tolist(),
        "bias_arcsec": [float(located["dx"].median()), float(located["dy"].median())],
        "half_pixel_of_the_list_arcsec": float(located["half_pixel"].median()),
        "median_distance_arcsec": float(apart.median()),
        "largest_distance_arcsec": float(apart.max()),
        "forward_fit_flares": len(fit),
        "forward_fit_median_distance_arcsec": float(fit.median()),
        "forward_fit_p90_distance_arcsec": float(fit.quantile(0.9)),
        "forward_fit_bias_arcsec": [float(located[axis].median()) for axis in ("hpc_dx", "hpc_dy")],
        "forward_fit_further_than_10_arcsec": {str(name): round(float(far), 1) for name, far in fit[fit > 10].items()},
        "sidelobe_ratio_above_0.9": located.loc[located["sidelobe_ratio"] >= 0.9, "flare_id"].tolist(),
        "cpu_seconds_replay_ingest_build": processed,
        "cpu_seconds_locate": time.process_time() - started - processed,
    }
    text = json.dumps(result, indent=2) if options.json else "\n".join(f"{k:34s} {v}" for k, v in result.items())
    sys.stdout.write(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
