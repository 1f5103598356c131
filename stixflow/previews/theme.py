"""The look of all figures, on light and on dark ground, and their way into files."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ThemeName = Literal["light", "dark"]


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours of a figure; `bands` are those of the energy bands from low to high, told apart by colour-blind eyes."""

    ground: str
    ink: str
    faint: str
    line: str
    accent: str
    bands: tuple[str, ...]


THEMES: Mapping[str, Theme] = MappingProxyType(
    {
        "light": Theme(
            ground="#ffffff",
            ink="#1c2733",
            faint="#5b6876",
            line="#d9dfe5",
            accent="#c2410c",
            bands=("#1d5fa8", "#0b8a79", "#b07700", "#c4476f", "#6b5ca5"),
        ),
        "dark": Theme(
            ground="#161b22",
            ink="#e6edf3",
            faint="#9aa7b4",
            line="#303944",
            accent="#ff922b",
            bands=("#6cb0f5", "#3fd0bb", "#f0b93c", "#f285a8", "#a99be8"),
        ),
    }
)


def new_figure(
    width: float, height: float, theme: Theme, *, layout: Literal["constrained", "compressed"] = "constrained"
) -> Figure:
    """Return an empty figure of so many inches that no window system and no global state knows of."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor=theme.ground, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def dress(axes: Axes, theme: Theme) -> None:
    """Give axes the colours of the theme."""
    axes.set_facecolor(theme.ground)
    axes.tick_params(which="both", colors=theme.faint, labelsize=9)
    for side, spine in axes.spines.items():
        spine.set_color(theme.line)
        spine.set_visible(side in ("left", "bottom"))
    axes.xaxis.label.set_color(theme.ink)
    axes.yaxis.label.set_color(theme.ink)


def figure_png(figure: Figure, *, dpi: float = 110) -> bytes:
    """Draw a figure as PNG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    metadata: dict[str, Any] = {"Software": None}
    figure.savefig(buffer, format="png", dpi=dpi, facecolor=figure.get_facecolor(), metadata=metadata)
    return buffer.getvalue()


def write_pdf(path: str | Path, figures: Sequence[Figure], *, title: str = "") -> Path:
    """Write figures as the pages of a PDF; the same figures give the same bytes."""
    from matplotlib.backends.backend_pdf import PdfPages

    facts = {"Title": title, "Creator": "stixflow", "Producer": None, "CreationDate": None}
    with PdfPages(path, metadata=facts) as pages:
        for figure in figures:
            pages.savefig(figure, facecolor=figure.get_facecolor())
    return Path(path)
