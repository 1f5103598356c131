"""Scripts that make the images of a preview again: in Python with stixflow, in IDL with the ground software."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template

import stixflow
from stixflow.ephemeris import hpc_to_stix
from stixflow.errors import UsageError
from stixflow.previews.panels import FitShape, Preview
from stixflow.time import iso


@dataclass(frozen=True, slots=True)
class ScriptFiles:
    """Names of the files that a script reads; without folder, they lie beside it (in IDL always)."""

    pixels: str
    """Level-1 pixel data."""
    ephemeris: str
    """L2 ancillary file."""
    background: str = ""
    """Level-1 pixel data of a quiet time; empty for none."""


def python_script(shown: Preview, files: ScriptFiles) -> str:
    """Python script that makes the maps of a preview again, writes them as FITS files, and draws them."""
    return _fill(
        "preview.py.txt",
        pixels=repr(files.pixels),
        background=repr(files.background),
        ephemeris=repr(files.ephemeris),
        start=str(shown.time_range.start),
        stop=str(shown.time_range.stop),
        energies=repr(tuple(map(float, shown.energy_range))),
        methods="".join(f"    {method!r},\n" for method in shown.methods),
        imports=", ".join(sorted(type(method).__name__ for method in shown.methods)),
        size=str(shown.size),
        pixel=repr(shown.pixel),
    )


def idl_script(
    shown: Preview,
    files: ScriptFiles,
    *,
    source_type: FitShape | None = None,
    locating_energies: tuple[float, float] = (6.0, 10.0),
) -> str:
    """IDL script for the ground software, as the data centre makes them, every input filled in.

    `sun_center` is the centre of the Sun in the STIX frame by the same pointing as in the maps of stixflow; the offsets
    are its negative, as in the template of the mission. The shape of the fit is that of the preview if not given; for a
    loop, which that routine does not take, an ellipse.

    Raises
    ------
    UsageError
        If there is no background, which the ground software needs, or the pointing or place is unknown.
    """
    point, place = shown.source.pointing, shown.source.observer
    if not files.background or point is None or place is None:
        raise UsageError(
            "the IDL script lacks an input",
            expected="a background file, and a known pointing and place of the spacecraft",
            advice="choose a background",
        )
    x, y = hpc_to_stix((0.0, 0.0), point).tolist()
    shape = source_type or shown.shape
    numbers = {
        "b0": place.hglt_deg, "l0": place.hgln_deg, "rsun": place.rsun_arcsec, "dsun": place.distance_m,
        "roll_angle": point.roll, "sun_center_x": x, "sun_center_y": y,
        "bp_elow": locating_energies[0], "bp_ehigh": locating_energies[1],
        "elow": shown.energy_range[0], "ehigh": shown.energy_range[1],
    }  # fmt: skip
    return _fill(
        "preview.pro.txt",
        signal=Path(files.pixels).name,
        background=Path(files.background).name,
        start=iso(shown.time_range.start),
        stop=iso(shown.time_range.stop),
        pointing=point.source,
        source_type=shape if shape != "loop" else "ellipse",
        **{name: _double(value) for name, value in numbers.items()},
    )


def _double(value: float) -> str:
    """Write a number as IDL reads it in double precision."""
    text = f"{float(value):.12g}"
    return text.replace("e", "d") if "e" in text else f"{text}d"


def animation_script(maps: Sequence[str], *, output: str = "animation.gif", milliseconds: int = 500) -> str:
    """Python script that makes an animation and an overlay of maps, FITS files that lie beside it."""
    names = "".join(f"    {name!r},\n" for name in maps)
    install = "pip install stixflow[movie]" if output.endswith(".mp4") else "pip install stixflow"
    return _fill("animation.py.txt", maps=names, install=install, output=repr(output), milliseconds=str(milliseconds))


def _fill(name: str, **values: str) -> str:
    template = Template(resources.files("stixflow.previews").joinpath("templates", name).read_text("utf-8"))
    return template.substitute(version=stixflow.__version__, **values)
