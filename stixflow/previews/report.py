"""One self-contained HTML page about what was observed, found and imaged."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from stixflow.previews.image import Mark, SkyImage, image_figure
from stixflow.previews.lightcurve import lightcurve_figure
from stixflow.previews.theme import figure_png

_FLARE_TABLE = {
    "flare_id": "flare",
    "start": "start",
    "peak": "peak",
    "stop": "stop",
    "peak_counts": "peak counts / bin",
    "signal_counts": "signal counts",
    "goes_class": "GOES class (estimated)",
    "upper_energy_keV": "up to keV",
}
_LABELS = {
    "": "flare",
    "goes_class": "GOES class",
    "position_hpc": "helioprojective x, y (arcsec)",
    "position_sigma": "± (arcsec)",
    "flux_4_10": "flux 4–10 keV",
}
_ISO_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?Z?")


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """Images of one flare drawn side by side, with marked positions and a caption."""

    images: Sequence[SkyImage]
    marks: Sequence[Mark] = ()
    caption: str = ""
    field_of_view: float | None = None


def write_report(
    path: str | Path,
    *,
    title: str,
    subtitle: str = "",
    facts: Mapping[str, object] | None = None,
    lightcurve: xr.Dataset | None = None,
    flares: pd.DataFrame | None = None,
    pictures: Sequence[Picture] = (),
    comparison: Sequence[Mapping[str, Any]] = (),
    balance: Mapping[str, int] | None = None,
    seconds: Mapping[str, float] | None = None,
    places: Mapping[str, object] | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """Write a page that needs nothing but itself: pictures inside, light and dark, readable without seeing them.

    Parameters
    ----------
    facts
        Headline numbers by name.
    comparison
        What was simulated beside what was found, as in ``stixflow demo --json``: each item has `truth` and `found` (a
        mapping or None), and numbers such as `position_error_arcsec`.
    balance
        `packets_in`, `used`, `duplicates`, `rejected`.
    seconds
        Duration of each stage.
    places
        Where things are, by name.
    """
    sections = [
        _facts(facts or {}),
        _lightcurve(lightcurve, flares),
        _comparison(comparison),
        _pictures(pictures),
        _flares(flares),
        _accounts(balance, seconds),
        _places(places or {}),
        _notes(notes),
    ]
    template = Template(resources.files("stixflow.previews").joinpath("templates/report.html").read_text("utf-8"))
    page = template.substitute(
        title=escape(title),
        subtitle=f'<p class="subtitle">{escape(subtitle)}</p>' if subtitle else "",
        body="\n".join(section for section in sections if section),
        version=escape(_version()),
    )
    target = Path(path)
    target.write_text(page, encoding="utf-8")
    return target


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("stixflow")
    except PackageNotFoundError:
        return ""


def _facts(facts: Mapping[str, object]) -> str:
    if not facts:
        return ""
    cards = "".join(f"<div><dt>{escape(name)}</dt><dd>{_text(value)}</dd></div>" for name, value in facts.items())
    return f'<dl class="facts">{cards}</dl>'


def _lightcurve(lightcurve: xr.Dataset | None, flares: pd.DataFrame | None) -> str:
    if lightcurve is None or not lightcurve.sizes.get("time"):
        return ""
    light, dark = (figure_png(lightcurve_figure(lightcurve, flares, theme=theme)) for theme in ("light", "dark"))
    alt = _lightcurve_alt(lightcurve, flares)
    picture = (
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{_data_url(dark)}">'
        f'<img src="{_data_url(light)}" alt="{escape(alt)}"></picture>'
    )
    caption = "Quick-look count rates, not corrected for attenuation and dead time; flares are shaded."
    return _section("Light curve", f"<figure>{picture}<figcaption>{caption}</figcaption></figure>")


def _lightcurve_alt(lightcurve: xr.Dataset, flares: pd.DataFrame | None) -> str:
    times = lightcurve["time"].to_numpy()
    text = (
        f"Count rates in {lightcurve.sizes['energy']} energy bands from {_text(times[0])} to {_text(times[-1])} UTC, "
        f"logarithmic."
    )
    if flares is None or flares.empty:
        return text + " No flares."
    peaks = ", ".join(f"{pd.Timestamp(peak):%H:%M}" for peak in flares["peak"].head(20))
    return f"{text} {len(flares)} flares, peaking at {peaks}."


def _pictures(pictures: Sequence[Picture]) -> str:
    if not pictures:
        return ""
    body = "".join(map(_picture, pictures))
    return _section("Images", f'<div class="images">{body}</div>')


def _picture(picture: Picture) -> str:
    figure = image_figure(picture.images, marks=picture.marks, field_of_view=picture.field_of_view, theme="dark")
    wide = ' class="wide"' if len(picture.images) > 1 else ""
    return (
        f'<figure{wide}><img src="{_data_url(figure_png(figure))}" alt="{escape(_picture_alt(picture))}">'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
    )


def _picture_alt(picture: Picture) -> str:
    parts = []
    for image in picture.images:
        x, y = image.peak_xy()
        parts.append(f"{image.title or 'X-ray image'}: brightest at x {x:.0f}, y {y:.0f} arcsec")
    parts += [f"{mark.label or mark.kind} at x {mark.x:.0f}, y {mark.y:.0f} arcsec" for mark in picture.marks]
    return "; ".join(parts) + "; solar limb and 10 degree heliographic grid."


def _comparison(comparison: Sequence[Mapping[str, Any]]) -> str:
    if not comparison:
        return ""
    keys = list(dict.fromkeys(key for item in comparison for part in ("truth", "found") for key in item[part] or {}))
    extra = list(dict.fromkeys(key for item in comparison for key in item if key not in ("truth", "found")))
    head = "".join(f'<th scope="col">{escape(_label(key))}</th>' for key in ["", *keys, *extra])
    rows = "".join(_comparison_rows(number, item, keys, extra) for number, item in enumerate(comparison, 1))
    found = sum(item["found"] is not None for item in comparison)
    caption = f"{found} of {len(comparison)} simulated flares were found; the truth stands above what was found."
    return _section("Truth and result", _scroll(caption, f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody>"))


def _comparison_rows(number: int, item: Mapping[str, Any], keys: Sequence[str], extra: Sequence[str]) -> str:
    truth, found = item["truth"] or {}, item["found"]
    first = "".join(_cell(truth.get(key), "truth") for key in keys)
    closing = "".join(_cell(item.get(key), "", ' rowspan="2"') for key in extra)
    upper = f'<tr class="truth"><th scope="row">{number} truth</th>{first}{closing}</tr>'
    if found is None:
        return (
            upper + f'<tr><th scope="row">{number} found</th><td class="missed" colspan="{len(keys)}">missed</td></tr>'
        )
    second = "".join(_cell(found.get(key), "") for key in keys)
    return upper + f'<tr><th scope="row">{number} found</th>{second}</tr>'


def _flares(flares: pd.DataFrame | None) -> str:
    if flares is None or flares.empty:
        return ""
    shown = {name: label for name, label in _FLARE_TABLE.items() if name in flares}
    head = "".join(f'<th scope="col">{escape(label)}</th>' for label in shown.values())
    rows = "".join(
        "<tr>" + "".join(_cell(value, "") for value in row) + "</tr>"
        for row in flares[list(shown)].itertuples(index=False, name=None)
    )
    caption = f"{len(flares)} flares detected in 4–10 keV; start belongs to the flare, stop does not."
    return _section("Flares", _scroll(caption, f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody>"))


def _accounts(balance: Mapping[str, int] | None, seconds: Mapping[str, float] | None) -> str:
    parts = [part for part in (_balance(balance), _seconds(seconds)) if part]
    return f'<div class="columns">{"".join(parts)}</div>' if parts else ""


def _balance(balance: Mapping[str, int] | None) -> str:
    if balance is None:
        return ""
    parts = sum(balance.get(name, 0) for name in ("used", "duplicates", "rejected"))
    settled = parts == balance.get("packets_in", 0)
    verdict = "The books balance." if settled else f"The books do not balance: {parts} packets accounted for."
    rows = "".join(
        f'<tr><th scope="row">{escape(_label(name))}</th><td class="number">{value:,}</td></tr>'
        for name, value in balance.items()
    )
    table = _scroll("Packets read, and what became of them", f"<tbody>{rows}</tbody>")
    return _section("Books", f'<p class="{"good" if settled else "bad"}">{verdict}</p>{table}')


def _seconds(seconds: Mapping[str, float] | None) -> str:
    if not seconds:
        return ""
    longest = max(seconds.values()) or 1.0
    rows = "".join(
        f'<tr><th scope="row">{escape(_label(name))}</th><td class="number">{value:.2f}</td>'
        f'<td><span class="bar" style="width: {12 * value / longest:.2f}rem"></span></td></tr>'
        for name, value in seconds.items()
    )
    head = '<tr><th scope="col">stage</th><th scope="col" class="number">s</th><th scope="col">share</th></tr>'
    table = f"<thead>{head}</thead><tbody>{rows}</tbody>"
    return _section("Seconds", _scroll("Duration of each stage", table))


def _places(places: Mapping[str, object]) -> str:
    if not places:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{escape(_label(name))}</th><td><code>{escape(str(value))}</code></td></tr>'
        for name, value in places.items()
    )
    return _section("Where things are", _scroll("", f"<tbody>{rows}</tbody>"))


def _notes(notes: Sequence[str]) -> str:
    return _section("Notes", "".join(f'<p class="note">{escape(note)}</p>' for note in notes)) if notes else ""


def _section(heading: str, body: str) -> str:
    return f"<section><h2>{escape(heading)}</h2>{body}</section>"


def _scroll(caption: str, rows: str) -> str:
    """Wrap a table so that a narrow window scrolls it, by keyboard too, and not the page."""
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    label = f' role="region" aria-label="{escape(caption)}"' if caption else ""
    return f'<div class="scroll" tabindex="0"{label}><table>{title}{rows}</table></div>'


def _cell(value: object, style: str, more: str = "") -> str:
    numeric = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    classes = " ".join(name for name in (style, "number" if numeric else "") if name)
    attribute = f' class="{classes}"' if classes else ""
    return f"<td{attribute}{more}>{_text(value)}</td>"


def _label(key: str) -> str:
    return _LABELS.get(key) or key.replace("_arcsec", " (arcsec)").replace("_", " ")


def _text(value: object) -> str:
    """Write one value for people: times to the second, pairs to a tenth, numbers to four digits, none as a dash."""
    if isinstance(value, (list, tuple, np.ndarray)):
        return ", ".join(f"{part:.1f}" if isinstance(part, (float, np.floating)) else _text(part) for part in value)
    if value is None or value is pd.NaT or (isinstance(value, float) and np.isnan(value)):
        return "–"
    if isinstance(value, (datetime, np.datetime64)) or (isinstance(value, str) and _ISO_TIME.fullmatch(value)):
        return f"{pd.Timestamp(value).round('s'):%Y-%m-%d %H:%M:%S}"
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return f"{value:,}"
    if isinstance(value, (float, np.floating)):
        number = float(value)
        return f"{number:.4g}" if abs(number) < 1e3 else f"{number:,.0f}"
    return escape(str(value))


def _data_url(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
