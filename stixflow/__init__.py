"""stixflow turns the telemetry of STIX on Solar Orbiter into cubes, flares, images and spectra."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stixflow.archive import Archive, open_archive

__version__ = "0.1.0"
__all__ = ["Archive", "__version__", "open_archive"]


def __getattr__(name: str) -> object:
    # The archive needs xarray, pandas and SQLAlchemy: half a second that `stixflow --help` does not have.
    if name in {"Archive", "open_archive"}:
        from stixflow import archive

        return getattr(archive, name)
    raise AttributeError(f"module 'stixflow' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
