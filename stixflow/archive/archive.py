"""The analyst's door: cubes, requests, flares and images of an archive, by time or by name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import pandas as pd
import xarray as xr

from stixflow.archive.catalog import Catalog
from stixflow.archive.entries import Partition
from stixflow.archive.filters import FlareFilters, RequestFilters, select_flares, select_requests
from stixflow.archive.frames import calibrations_frame, frame_of, products_of, requests_frame
from stixflow.archive.layout import CATALOG_NAME, join_url
from stixflow.archive.maps import read_map
from stixflow.archive.moments import at_moment
from stixflow.archive.opening import open_calibration, open_request, open_span
from stixflow.archive.verifying import lost_stores, verify_stores
from stixflow.cubes.select import pixel_lightcurve, to_timeseries
from stixflow.cubes.store import Defect
from stixflow.errors import MissingFile, NotFound, UsageError, masked
from stixflow.time import TimeRange, iso, to_utc

if TYPE_CHECKING:
    from sunpy.map import GenericMap
    from sunpy.timeseries import GenericTimeSeries


def open_archive(
    root: str | os.PathLike[str],
    release: str | None = None,
    *,
    catalog: str | None = None,
    create: bool = False,
) -> Archive:
    """Open an archive.

    Parameters
    ----------
    root
        Its folder, or an ``s3://`` URL.
    release
        A release to pin; None follows what is published.
    catalog
        SQLAlchemy URL of its catalog; by default ``catalog.sqlite`` in the root.
    create
        Make an archive where there is none.

    Raises
    ------
    MissingFile
        If there is no archive and `create` is not given.
    NotFound
        If there is no such release.
    """
    return Archive(root, release, catalog=catalog, create=create)


class Archive:
    """Everything that is published, read lazily; each call sees one moment of the catalog."""

    def __init__(
        self,
        root: str | os.PathLike[str],
        release: str | None = None,
        *,
        catalog: str | None = None,
        create: bool = False,
    ) -> None:
        self.root = _plain_root(root)
        self.catalog = Catalog(catalog or _sqlite_url(self.root, create=create), release=release)

    def __repr__(self) -> str:
        totals = self.catalog.totals()
        lines = [f"<stixflow.Archive {masked(self.root)}>"]
        for row in self.catalog.coverage():
            span = f"{iso(row['start'])} to {iso(row['stop'])}"
            lines.append(f"  {row['product']:16s} {row['partitions']:6d} partitions  {span}")
        lines.append(f"  {totals['flares']} flares, {totals['images']} images")
        return "\n".join(lines)

    def close(self) -> None:
        """Close the catalog."""
        self.catalog.close()

    # Cubes ------------------------------------------------------------------------------------------------------------

    def lightcurves(self, start: object, stop: object) -> xr.Dataset:
        """Return the quick-look light curves of ``[start, stop)`` as one Dataset, read when used.

        Raises
        ------
        NotFound
            If nothing is published there; the message says what is.
        """
        return self.cube("ql_lightcurve", start, stop)

    def timeseries(self, start: object, stop: object) -> GenericTimeSeries:
        """Return the quick-look light curves of ``[start, stop)`` as a sunpy TimeSeries; errors as `lightcurves`."""
        return to_timeseries(self.lightcurves(start, stop))

    def ephemeris(self, start: object, stop: object) -> xr.Dataset:
        """Return where the spacecraft was and pointed during ``[start, stop)``."""
        return self.cube("ephemeris", start, stop)

    def cube(self, product: str, start: object, stop: object) -> xr.Dataset:
        """Return the bins of a day product whose centre lies in ``[start, stop)``, in order of time."""
        return open_span(self.catalog, self.root, product, TimeRange(to_utc(start), to_utc(stop)))

    def pixels(self, request_id: int, box: int | None = None, *, seq_control: int | None = None) -> xr.Dataset:
        """Return the pixel data of a request (time, energy, detector, pixel), read when used.

        Where pixels were summed on board, the Dataset is one of product ``sci_pixel_sums``: its pixels are sets.

        Parameters
        ----------
        box
            Which of its time and energy boxes; may be left out where there is one.
        seq_control
            Which of several answers to the same request; may be left out where there is one.

        Raises
        ------
        NotFound
            If the request is not there.
        UsageError
            If there are several boxes or answers and none was chosen; the message lists them.
        """
        return self._request(("sci_pixels", "sci_pixel_sums"), request_id, box, seq_control)

    def pixel_lightcurve(
        self,
        request_id: int,
        *,
        energy_range: tuple[float, float] | None = None,
        detectors: Sequence[int] | None = None,
        pixels: Sequence[int] | None = None,
        box: int | None = None,
        seq_control: int | None = None,
    ) -> xr.Dataset:
        """Return counts (time, energy) of chosen energies, detectors and pixels of a request, reading little else.

        Parameters and errors as `pixels` and `stixflow.cubes.select.pixel_lightcurve`.
        """
        cube = self.pixels(request_id, box, seq_control=seq_control)
        return pixel_lightcurve(cube, energy_range=energy_range, detectors=detectors, pixels=pixels)

    def visibilities(self, request_id: int, box: int | None = None, *, seq_control: int | None = None) -> xr.Dataset:
        """Return the visibilities made on board for a request (time, energy, detector); see `pixels`."""
        return self._request(("sci_visibilities",), request_id, box, seq_control)

    def spectrogram(self, request_id: int, box: int | None = None, *, seq_control: int | None = None) -> xr.Dataset:
        """Return the spectrogram of a request (time, energy); see `pixels`."""
        return self._request(("sci_spectrogram",), request_id, box, seq_control)

    def calibration(self, key: str) -> xr.Dataset:
        """Return the spectra of a calibration run (adc, detector, pixel), by the key that `calibrations` lists.

        Raises
        ------
        NotFound
            If the run is not there.
        """
        return open_calibration(self.catalog, self.root, key)

    def at(self, time: object) -> pd.DataFrame:
        """Return everything that covers a moment, one row each: partitions of every product, flares, images.

        Returns
        -------
        `what` (a product, ``flare`` or ``image``), `name`, `start`, `stop`, `detail` for reading, and `opened_by`: the
        call that gives it. The day of a product covers from its first bin to its last, gaps included.
        """
        return frame_of("moment", at_moment(self.catalog, to_utc(time)))

    # Tables -----------------------------------------------------------------------------------------------------------

    def requests(
        self, start: object = None, stop: object = None, kind: str | None = None, **filters: Unpack[RequestFilters]
    ) -> pd.DataFrame:
        """Return the science requests that overlap ``[start, stop)``, one row each.

        A request of which a value is not known is left out where that value is asked for.

        Parameters
        ----------
        kind
            ``"pixels"``, ``"pixel_sums"``, ``"visibilities"`` or ``"spectrogram"``; None for all.
        energy_range
            Lowest and highest energy in keV: requests that have all of it.
        duration_s
            Range of its length, ``(low, high)``, half-open; either may be None.
        attenuator
            Whether the attenuator was in at any time of it.
        complete
            Whether all of its packets are there.
        """
        found = self.catalog.partitions(products_of(kind), start=start, stop=stop)
        return select_requests(requests_frame(found), **filters)

    def calibrations(self, start: object = None, stop: object = None) -> pd.DataFrame:
        """Return the calibration runs that overlap ``[start, stop)``, one row each."""
        return calibrations_frame(self.catalog.partitions("cal_spectrum", start=start, stop=stop))

    def flares(
        self,
        start: object = None,
        stop: object = None,
        *,
        has_images: bool | None = None,
        **filters: Unpack[FlareFilters],
    ) -> pd.DataFrame:
        """Return the flares whose peak lies in ``[start, stop)``, one row each; times are UTC without a zone.

        Ranges are ``(low, high)``, half-open; either may be None. A flare of which a value is not known is left out
        where that value is asked for.

        Parameters
        ----------
        has_images
            Whether the archive has images of it.
        goes_class
            A lowest class as ``"C5"``, or ``("B1", "C1")`` for those from B1 to below C1, of the estimate.
        peak_counts
            Range of the counts at its peak, of the lowest band, a bin.
        duration_s
            Range of its length.
        distance_au
            Range of the distance of the spacecraft from the Sun.
        upper_energy_keV
            Range of the energy up to which it was seen.
        attenuator
            Whether the attenuator was in at any time of it.
        on_disk
            Whether it was located, and on the disk as seen from the spacecraft (True) or beyond the limb (False).
        """
        frame = select_flares(frame_of("flares", self.catalog.flares(start, stop)), **filters)
        if has_images is None:
            return frame
        return frame[frame["flare_id"].isin(self.catalog.imaged()) == has_images].reset_index(drop=True)

    def images(self, flare_id: object = None, start: object = None, stop: object = None) -> pd.DataFrame:
        """Return the images of a flare, or whose interval starts in ``[start, stop)``, one row each."""
        return frame_of("images", self.catalog.images(flare_id, start, stop))

    def runs(self) -> pd.DataFrame:
        """Return what was run on this archive, the latest first; ``dead`` are runs that ended without saying so."""
        return frame_of("runs", self.catalog.runs())

    def coverage(self) -> pd.DataFrame:
        """Return what is published of each product: partitions, span, size."""
        return frame_of("coverage", self.catalog.coverage())

    def files(self) -> pd.DataFrame:
        """Return the input files with the balance of their packets."""
        return frame_of("files", self.catalog.files())

    def quarantine(self, run_id: str | None = None) -> pd.DataFrame:
        """Return the bytes that could not be used, why, and where they are kept."""
        return frame_of("quarantine", self.catalog.quarantined(run_id))

    def map(self, image_id: str) -> GenericMap:
        """Return an image as a sunpy map, with its uncertainty where the file has one.

        Raises
        ------
        NotFound
            If there is no such image.
        StoreError
            If its file is lost or damaged.
        """
        found = self.catalog.images(image_id=image_id)
        if not found:
            raise NotFound(f"there is no image {image_id!r}", advice="see what there is with archive.images()")
        return read_map(join_url(self.root, found[0]["path"]))

    # Care -------------------------------------------------------------------------------------------------------------

    def url(self, path: str) -> str:
        """Return the full place of a path below the root."""
        return join_url(self.root, path)

    def lost(self) -> list[Partition]:
        """Return the published partitions whose store is no longer there: a glance, where `verify` reads everything."""
        return lost_stores(self.catalog, self.root)

    def verify(self, partitions: Iterable[Partition] | None = None) -> list[Defect]:
        """Read every published store (or those given) and return all that is wrong with them."""
        return verify_stores(self.catalog, self.root, partitions)

    def _request(
        self, products: Sequence[str], request_id: int, box: int | None, seq_control: int | None
    ) -> xr.Dataset:
        return open_request(self.catalog, self.root, products, request_id, box=box, seq_control=seq_control)


def _plain_root(root: str | os.PathLike[str]) -> str:
    text = os.fspath(root)
    return text.rstrip("/") if "://" in text else str(Path(text).expanduser().absolute())


def _sqlite_url(root: str, *, create: bool) -> str:
    if "://" in root:
        raise UsageError(
            f"{root} has no place for SQLite",
            expected="the URL of its catalog",
            advice="give catalog=, or --catalog, as postgresql+psycopg://HOST/NAME",
        )
    path = Path(root) / CATALOG_NAME
    if create:
        path.parent.mkdir(parents=True, exist_ok=True)
    elif not path.is_file():
        raise MissingFile(
            f"{root} is not an archive", expected=f"a folder with {CATALOG_NAME}", advice="make one: `stixflow ingest`"
        )
    return f"sqlite:///{path}"
