"""A scenario written to disk: telemetry as a delivery from the spacecraft, ancillary files, and the truth."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from stixflow.cubes.model import DATA_MODEL_VERSION, PRODUCTS
from stixflow.ephemeris import write_ancillary
from stixflow.ephemeris.attitude import ATTITUDE_OFFSET, SAS_OFFSET
from stixflow.ephemeris.constants import AU_M
from stixflow.flares.goes import goes_class
from stixflow.simulate.observe import Request, Sky, build_sky, light_curve, science
from stixflow.simulate.packetise import SequenceCounter, packetise
from stixflow.simulate.plan import plan_requests
from stixflow.simulate.replay import Container, check_container, write_container
from stixflow.simulate.response import FlareResponse
from stixflow.simulate.sun import Scenario, Source
from stixflow.telemetry import Packets, encode
from stixflow.time import TimeRange, iso, scet_to_utc, utc_to_scet

_TRUTH_NAME = "truth.json"
_EPHEMERIS_STEP_S = 64


@dataclass(frozen=True, slots=True)
class Truth:
    """What was simulated.

    Attributes
    ----------
    scenario
        All parameters, the seed among them.
    flares
        One dictionary a flare, as in the file.
    requests
        One dictionary a science request.
    totals
        Packets and counts by product.
    telemetry, ephemeris
        Files written.
    path
        The truth file, which holds all of this.
    """

    scenario: Scenario
    flares: tuple[dict[str, Any], ...]
    requests: tuple[dict[str, Any], ...]
    totals: dict[str, dict[str, int]]
    telemetry: tuple[Path, ...]
    ephemeris: tuple[Path, ...]
    path: Path


def simulate(
    scenario: Scenario,
    out_dir: str | Path,
    *,
    container: Container = "binary",
    progress: Callable[[str], None] | None = None,
) -> Truth:
    """Write what the instrument would send in a scenario, and the truth.

    Parameters
    ----------
    scenario
        What happens; the same scenario gives the same files, byte for byte.
    out_dir
        Folder; telemetry goes to its `telemetry/`, ancillary files to `ephemeris/`, the truth to `truth.json`.
    container
        SOC XML (`PktTmRaw`) or packets back to back.
    progress
        Called with a few words at the start of each step.

    Raises
    ------
    UsageError
        If the container is unknown, or a flare asks for what the relations cannot give.
    """
    check_container(container)
    say = progress or _silent
    folder = Path(out_dir)
    for name in ("telemetry", "ephemeris"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    say("the sky")
    sky = build_sky(scenario)
    requests = plan_requests(scenario, sky.flares)
    totals: dict[str, dict[str, int]] = {}
    files = []
    counter = SequenceCounter()
    for name, dataset in _deliveries(sky, requests, say):
        records, counter = packetise(dataset, counter=counter)
        packets = Packets.from_bytes(encode(records))
        files.append(write_container(packets, folder / "telemetry" / name, container))
        _add_totals(totals, dataset, len(packets))
    say("ephemeris and truth")
    ephemeris = _write_ephemeris(scenario, folder / "ephemeris")
    truth = Truth(
        scenario,
        tuple(_describe_flare(scenario, response, requests) for response in sky.flares),
        tuple(_describe_request(request) for request in requests),
        totals,
        tuple(files),
        ephemeris,
        folder / _TRUTH_NAME,
    )
    truth.path.write_text(json.dumps(_as_json(truth), indent=1) + "\n", encoding="utf-8")
    return truth


def _silent(_: str) -> None:
    return None


def _deliveries(sky: Sky, requests: list[Request], say: Callable[[str], None]) -> Iterator[tuple[str, xr.Dataset]]:
    day = iso(sky.scenario.span.start)[:10].replace("-", "")
    say("quick-look light curves")
    yield f"{day}_ql_lightcurve", light_curve(sky)
    for request in requests:
        say(f"request {request.request_id}, {request.kind}")
        yield f"{day}_{request.kind}_{request.request_id}", science(sky, request)


def _add_totals(totals: dict[str, dict[str, int]], dataset: xr.Dataset, packets: int) -> None:
    product = totals.setdefault(dataset.attrs["product"], {"packets": 0, "counts": 0})
    product["packets"] += packets
    product["counts"] += int(dataset["counts"].values.sum(dtype=np.int64))


def ephemeris_dataset(scenario: Scenario, span: TimeRange) -> xr.Dataset:
    """Ancillary data of a scenario in a span, every 64 s: place, roll, and a pointing that both solutions agree on."""
    first = int(utc_to_scet(span.start)) + (_EPHEMERIS_STEP_S << 15)
    scet = np.arange(first, int(utc_to_scet(span.stop)), _EPHEMERIS_STEP_S << 16, dtype=np.int64)
    px, py = scenario.pointing_arcsec
    dx, dy = px - ATTITUDE_OFFSET[0], py - ATTITUDE_OFFSET[1]
    cos, sin = np.cos(np.deg2rad(scenario.roll_deg)), np.sin(np.deg2rad(scenario.roll_deg))
    constant = {
        "roll": scenario.roll_deg,
        "pitch": (dx * sin + dy * cos) / 3600.0,
        "yaw": (-dx * cos + dy * sin) / 3600.0,
        "sas_y": px - SAS_OFFSET[0],
        "sas_z": SAS_OFFSET[1] - py,
        "sas_ok": True,
        "distance": scenario.distance_au * AU_M,
        "hgln": scenario.hgln_deg,
        "hglt": scenario.hglt_deg,
        "rsun": scenario.solar_radius_arcsec,
    }
    values = {
        "time": scet_to_utc(scet),
        "scet": scet,
        **{name: np.full(scet.size, value) for name, value in constant.items()},
    }
    return xr.Dataset(
        {name: xr.Variable(("time",), values[name]) for name in PRODUCTS["ephemeris"].variables},
        attrs={"product": "ephemeris", "level": "L2", "data_model_version": DATA_MODEL_VERSION},
    )


def _write_ephemeris(scenario: Scenario, folder: Path) -> tuple[Path, ...]:
    paths = []
    for day in scenario.span.days():
        path = folder / f"solo_L2_stix-aux-ephemeris_{day:%Y%m%d}_V01.fits"
        write_ancillary(path, ephemeris_dataset(scenario, TimeRange.of_day(day)))
        paths.append(path)
    return tuple(paths)


def _describe_flare(scenario: Scenario, response: FlareResponse, requests: list[Request]) -> dict[str, Any]:
    flare = response.components[0].flare
    thermal = _describe_sources(scenario, flare.thermal_sources)
    weights = np.array([source["share"] for source in thermal])
    return {
        "flare_id": flare.flare_id,
        "peak": iso(flare.peak),
        "start": iso(flare.span.start),
        "end": iso(flare.span.stop),
        "goes_flux": flare.goes_flux,
        "goes_class": goes_class(flare.goes_flux),
        "peak_counts": response.ql_peak_counts,
        "emission_measure_cm3": response.emission_measure,
        "temperature_keV": flare.temperature,
        "electron_index": flare.electron_index,
        "position_hpc": [float(weights @ [source[axis] for source in thermal]) for axis in ("x", "y")],
        "position_stix": [float(weights @ [source[axis] for source in thermal]) for axis in ("stix_x", "stix_y")],
        "flux": response.flux,
        "sources": {
            "thermal": thermal,
            "non_thermal": _describe_sources(scenario, flare.non_thermal_sources or flare.thermal_sources),
        },
        "requests": [
            request.request_id
            for request in requests
            if request.purpose == "flare" and request.span.covers(np.array([flare.peak]))[0]
        ],
    }


def _describe_sources(scenario: Scenario, sources: tuple[Source, ...]) -> list[dict[str, float]]:
    total = sum(source.share for source in sources)
    described = []
    for source in sources:
        (stix_x, stix_y), (major, minor) = scenario.stix_position(source), source.widths
        described.append(
            {
                "x": source.x,
                "y": source.y,
                "stix_x": stix_x,
                "stix_y": stix_y,
                "fwhm": major,
                "fwhm_minor": minor,
                "position_angle": source.position_angle,
                "stix_angle": scenario.stix_angle(source),
                "share": source.share / total,
            }
        )
    return described


def _describe_request(request: Request) -> dict[str, Any]:
    return {
        "request_id": request.request_id,
        "seq_control": request.seq_control,
        "product": request.kind,
        "purpose": request.purpose,
        "start": iso(request.span.start),
        "stop": iso(request.span.stop),
        "bins": len(request.edges) - 1,
        "channels": list(request.channels),
    }


def _as_json(truth: Truth) -> dict[str, Any]:
    scenario = asdict(truth.scenario)
    scenario["span"] = str(truth.scenario.span)
    for flare in scenario["flares"]:
        flare["peak"] = iso(flare["peak"])
    root = truth.path.parent
    return {
        "scenario": scenario,
        "seed": truth.scenario.seed,
        "flares": truth.flares,
        "requests": truth.requests,
        "totals": truth.totals,
        "telemetry": [str(path.relative_to(root)) for path in truth.telemetry],
        "ephemeris": [str(path.relative_to(root)) for path in truth.ephemeris],
    }
