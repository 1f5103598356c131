"""The analyst's door: cubes, requests, flares and images of an archive, by time or by name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from stixflow.archive.catalog import Catalog
from stixflow.archive.entries import Partition
from stixflow.archive.filters import Range, select_flares, select_requests
from stixflow.archive.garbage import DERIVED
from stixflow.archive.layout import CATALOG_NAME, join_url
from stixflow.archive.mapping import read_map
from stixflow.archive.months import is_refused, stores_of
from stixflow.cubes.model import PRODUCTS
from stixflow.cubes.select import pixel_lightcurve, to_timeseries
from stixflow.cubes.store import Defect, open_joined, open_store, verify_store, which_are_there
from stixflow.errors import MissingFile, NotFound, StixflowError, StoreError, UsageError, masked
from stixflow.instrument import energy_edges
from stixflow.time import TimeRange, iso, to_utc

if TYPE_CHECKING:
    from datetime import date

    from sunpy.map import GenericMap
    from sunpy.timeseries import GenericTimeSeries

_KINDS = {
    "pixels": "sci_pixels",
    "pixel_sums": "sci_pixel_sums",
    "visibilities": "sci_visibilities",
    "spectrogram": "sci_spectrogram",
}
_TIME, _TEXT, _WHOLE, _REAL, _CLAIM = "datetime64[ns]", "object", "int64", "float64", "bool"
_REQUEST_COLUMNS = {
    "request_id": _WHOLE,
    "seq_control": _WHOLE,
    "kind": _TEXT,
    "start": _TIME,
    "stop": _TIME,
    "n_time": _WHOLE,
    "boxes": _WHOLE,
    "counts": _WHOLE,
    "complete": _CLAIM,
    "missing": _TEXT,
    "n_bytes": _WHOLE,
    "run_id": _TEXT,
    "energy_low": _REAL,
    "energy_high": _REAL,
    "duration_s": _REAL,
    "rcr_max": _REAL,
}
_FLARE_COLUMNS = {"flare_id": _TEXT, "start": _TIME, "peak": _TIME, "stop": _TIME, "peak_counts": _REAL}
_IMAGE_COLUMNS = {
    "image_id": _TEXT,
    "flare_id": _TEXT,
    "method": _TEXT,
    "energy_low": _REAL,
    "energy_high": _REAL,
    "start": _TIME,
    "stop": _TIME,
    "x_hpc": _REAL,
    "y_hpc": _REAL,
    "path": _TEXT,
}
_CALIBRATION_COLUMNS = {
    "key": _TEXT,
    "start": _TIME,
    "stop": _TIME,
    "counts": _WHOLE,
    "complete": _CLAIM,
    "missing": _TEXT,
    "n_bytes": _WHOLE,
    "run_id": _TEXT,
}
_RUN_COLUMNS = {
    "run_id": _TEXT,
    "command": _TEXT,
    "state": _TEXT,
    "started": _TIME,
    "finished": _TIME,
    "seen": _TIME,
    "host": _TEXT,
    "pid": "Int64",
}
_FILE_COLUMNS = {
    "name": _TEXT,
    "kind": _TEXT,
    "packets_in": _WHOLE,
    "used": _WHOLE,
    "duplicates": _WHOLE,
    "rejected": _WHOLE,
    "n_bytes": _WHOLE,
    "ingested": _TIME,
    "digest": _TEXT,
}
_COVERAGE_COLUMNS = {
    "product": _TEXT,
    "partitions": _WHOLE,
    "start": _TIME,
    "stop": _TIME,
    "n_bytes": _WHOLE,
    "n_time": _WHOLE,
    "incomplete": _WHOLE,
}
_MOMENT_COLUMNS = {
    "what": _TEXT,
    "name": _TEXT,
    "start": _TIME,
    "stop": _TIME,
    "detail": _TEXT,
    "opened_by": _TEXT,
}
_QUARANTINE_COLUMNS = {"file": _TEXT, "reason": _TEXT, "offset": _REAL, "n_bytes": _REAL, "path": _TEXT}


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
        span = TimeRange(to_utc(start), to_utc(stop))
        _check_product(product, "day")
        found = self.catalog.partitions(product, start=span.start, stop=span.stop)
        if not found:
            raise self._nothing(product, span)
        _check_same_axes(found)
        dataset = self._open_days(found)
        first, last = np.searchsorted(dataset["time"].values, np.array([span.start, span.stop]))
        if first == last:
            raise self._nothing(product, span)
        return dataset if last - first == dataset.sizes["time"] else dataset.isel(time=slice(int(first), int(last)))

    def _open_days(self, found: Sequence[Partition]) -> xr.Dataset:
        days = [(self.url(item.path), item.digest) for item in found]
        if len(days) == 1:
            return open_store(days[0][0], digest=days[0][1])
        joined = [(self.url(path), digest) for path, digest in stores_of(self.catalog, self.root, found)]
        try:
            return open_joined(joined)
        except StoreError:
            # A joined month may be damaged or just have been replaced; the days are the truth.
            return open_joined(days)

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
        found = self.catalog.current("cal_spectrum", key)
        if found is None:
            raise NotFound(f"there is no calibration run {key!r}", expected="a run that archive.calibrations() lists")
        return open_store(self.url(found.path), digest=found.digest)

    def at(self, time: object) -> pd.DataFrame:
        """Return everything that covers a moment, one row each: partitions of every product, flares, images.

        Returns
        -------
        `what` (a product, ``flare`` or ``image``), `name`, `start`, `stop`, `detail` for reading, and `opened_by`: the
        call that gives it. The day of a product covers from its first bin to its last, gaps included.
        """
        moment = to_utc(time)
        after = moment + np.timedelta64(1, "ns")
        rows = [_partition_moment(item) for item in self.catalog.partitions(start=moment, stop=after)]
        rows += [_flare_moment(row) for row in self.catalog.flares(at=moment)]
        rows += [_image_moment(row) for row in self.catalog.images(at=moment)]
        return _frame(rows, _MOMENT_COLUMNS)

    # Tables -----------------------------------------------------------------------------------------------------------

    def requests(
        self,
        start: object = None,
        stop: object = None,
        kind: str | None = None,
        *,
        energy_range: tuple[float, float] | None = None,
        duration_s: Range | None = None,
        attenuator: bool | None = None,
        complete: bool | None = None,
    ) -> pd.DataFrame:
        """Return the science requests that overlap ``[start, stop)``, one row each.

        Parameters
        ----------
        kind
            ``"pixels"``, ``"pixel_sums"``, ``"visibilities"`` or ``"spectrogram"``; None for all.
        energy_range, duration_s, attenuator, complete
            As for `filters.select_requests`: energies in keV that it must have, range of its length, whether the
            attenuator was in, whether all of its packets are there.
        """
        if kind is not None and kind not in _KINDS and kind not in _KINDS.values():
            raise UsageError(f"{kind!r} is not a kind of request", expected=" or ".join(_KINDS), advice="correct it")
        products = list(_KINDS.values()) if kind is None else [_KINDS.get(kind, kind)]
        rows = [_request_row(item) for item in self.catalog.partitions(products, start=start, stop=stop)]
        return select_requests(
            _frame(rows, _REQUEST_COLUMNS),
            energy_range=energy_range,
            duration_s=duration_s,
            attenuator=attenuator,
            complete=complete,
        )

    def calibrations(self, start: object = None, stop: object = None) -> pd.DataFrame:
        """Return the calibration runs that overlap ``[start, stop)``, one row each."""
        found = self.catalog.partitions("cal_spectrum", start=start, stop=stop)
        return _frame([_calibration_row(item) for item in found], _CALIBRATION_COLUMNS)

    def flares(
        self,
        start: object = None,
        stop: object = None,
        *,
        goes_class: str | tuple[str | None, str | None] | None = None,
        peak_counts: Range | None = None,
        duration_s: Range | None = None,
        distance_au: Range | None = None,
        upper_energy_keV: Range | None = None,
        attenuator: bool | None = None,
        on_disk: bool | None = None,
        has_images: bool | None = None,
    ) -> pd.DataFrame:
        """Return the flares whose peak lies in ``[start, stop)``, one row each; times are UTC without a zone.

        Parameters
        ----------
        goes_class
            A lowest class as ``"C5"``, or ``("B1", "C1")`` for those from B1 to below C1.
        has_images
            Whether the archive has images of it.
        others
            As for `filters.select_flares`; ranges are ``(low, high)``, half-open, either of which may be None.
        """
        frame = select_flares(
            _frame(self.catalog.flares(start, stop), _FLARE_COLUMNS),
            goes_class=goes_class,
            peak_counts=peak_counts,
            duration_s=duration_s,
            distance_au=distance_au,
            upper_energy_keV=upper_energy_keV,
            attenuator=attenuator,
            on_disk=on_disk,
        )
        if has_images is None:
            return frame
        return frame[frame["flare_id"].isin(self.catalog.imaged()) == has_images].reset_index(drop=True)

    def images(self, flare_id: object = None, start: object = None, stop: object = None) -> pd.DataFrame:
        """Return the images of a flare, or whose interval starts in ``[start, stop)``, one row each."""
        return _frame(self.catalog.images(flare_id, start, stop), _IMAGE_COLUMNS)

    def runs(self) -> pd.DataFrame:
        """Return what was run on this archive, the latest first; ``dead`` are runs that ended without saying so."""
        return _frame(self.catalog.runs(), _RUN_COLUMNS)

    def coverage(self) -> pd.DataFrame:
        """Return what is published of each product: partitions, span, size."""
        return _frame(self.catalog.coverage(), _COVERAGE_COLUMNS)

    def files(self) -> pd.DataFrame:
        """Return the input files with the balance of their packets."""
        return _frame(self.catalog.files(), _FILE_COLUMNS)

    def quarantine(self, run_id: str | None = None) -> pd.DataFrame:
        """Return the bytes that could not be used, why, and where they are kept."""
        return _frame(self.catalog.quarantined(run_id), _QUARANTINE_COLUMNS)

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
        published = self.catalog.partitions()
        there = which_are_there(self.root, [item.path for item in published])
        return [item for item in published if item.path not in there]

    def verify(self, partitions: Iterable[Partition] | None = None) -> list[Defect]:
        """Read every published store (or those given) and return all that is wrong with them."""
        chosen = self.catalog.partitions() if partitions is None else partitions
        found = [defect for item in chosen for defect in self._verify_one(item)]
        return found if partitions is not None else found + self._verify_months()

    def _verify_months(self) -> list[Defect]:
        urls = [self.url(path) for path in self.catalog.done(DERIVED).values() if not is_refused(path)]
        return [defect for url in urls for defect in verify_store(url)]

    def _verify_one(self, item: Partition) -> list[Defect]:
        url = self.url(item.path)
        found = verify_store(url, item.digest)
        return found or [Defect(url, "catalog", problem) for problem in _disagreements(url, item)]

    # Pieces -----------------------------------------------------------------------------------------------------------

    def _request(
        self, products: Sequence[str], request_id: int, box: int | None, seq_control: int | None
    ) -> xr.Dataset:
        found = self.catalog.partitions(products, request_id=int(request_id))
        chosen = [item for item in found if seq_control in (None, item.seq_control)]
        if not chosen:
            raise self._no_request(products[0], request_id, found)
        if len(chosen) > 1:
            raise UsageError(
                f"the request {request_id} was answered {len(chosen)} times: "
                + ", ".join(f"seq_control={item.seq_control} from {iso(item.start)}" for item in chosen),
                expected="one answer",
                advice="choose one with seq_control=",
            )
        if box is None and chosen[0].boxes > 1:
            raise UsageError(
                f"the request {request_id} has {chosen[0].boxes} boxes: " + "; ".join(self._describe_boxes(chosen[0])),
                expected="one box",
                advice="choose one with box=",
            )
        return open_store(self.url(chosen[0].path), box or 0, digest=chosen[0].digest)

    def _describe_boxes(self, item: Partition) -> list[str]:
        texts = []
        for box in range(item.boxes):
            dataset = open_store(self.url(item.path), box)
            low, high = float(dataset["energy_low"][0]), float(dataset["energy_high"][-1])
            first = dataset["time_start"].values[0]
            texts.append(f"box={box} from {iso(first)}, {dataset.sizes['time']} bins, {low:g}-{high:g} keV")
        return texts

    def _nothing(self, product: str, span: TimeRange) -> NotFound:
        held = self.catalog.partitions(product)
        what = f"published are {_days_text([item.day for item in held])}" if held else "nothing of it is published"
        return NotFound(
            f"no {product} in {span}: {what}",
            expected="a span with data",
            advice="ingest and process it, or ask another",
        )

    def _no_request(self, product: str, request_id: int, found: Sequence[Partition]) -> NotFound:
        if found:
            have = ", ".join(str(item.seq_control) for item in found)
            return NotFound(f"the request {request_id} has no such answer", expected=f"seq_control {have}")
        elsewhere = [item.product for item in self.catalog.partitions(request_id=int(request_id))]
        return NotFound(
            f"there is no {product} of the request {request_id}"
            + (f", but {' and '.join(elsewhere)}" if elsewhere else ""),
            expected="a request that archive.requests() lists",
            advice="correct the number, or ingest its telemetry",
        )


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


def _check_product(product: str, partition: str) -> None:
    known = [name for name, item in PRODUCTS.items() if item.partition == partition]
    if product not in known:
        raise UsageError(f"{product!r} is not a {partition} product", expected=", ".join(known), advice="correct it")


def _check_same_axes(found: Sequence[Partition]) -> None:
    for before, after in pairwise(found):
        # Where data models differ, it is asked of the stores whether what both have means the same.
        if before.axes != after.axes and before.data_model_version == after.data_model_version:
            raise UsageError(
                f"the energy bins of {after.product} change between {before.key} and {after.key}",
                expected="a span with one set of bins",
                advice=f"ask for the spans before and from {after.key} apart",
            )


def _disagreements(url: str, item: Partition) -> list[str]:
    try:
        boxes = [open_store(url, box) for box in range(item.boxes)]
    except StixflowError as error:
        return [str(error)]
    n_time = sum(box.sizes["time"] for box in boxes)
    counts = sum(int(box["counts"].values.sum(dtype=np.uint64)) for box in boxes if "counts" in box)
    compared = {"time bins": (n_time, item.n_time), "counts": (counts, item.counts_sum)}
    return [
        f"the store has {found} {what}, the catalog {wanted}"
        for what, (found, wanted) in compared.items()
        if found != wanted
    ]


def _days_text(days: Sequence[date]) -> str:
    """Write days as runs: ``2021-06-01 to 2021-06-06, 2021-06-09``; the last eight of them."""
    numbers = np.unique(np.array(days, dtype="datetime64[D]"))
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers).astype(int) > 1) + 1)
    texts = [str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs]
    return (f"{len(texts) - 8} earlier spans, " if len(texts) > 8 else "") + ", ".join(texts[-8:])


def _request_row(item: Partition) -> dict[str, object]:
    kind = next(kind for kind, product in _KINDS.items() if product == item.product)
    same = ("request_id", "seq_control", "start", "stop", "n_time", "boxes", "complete", "missing", "n_bytes", "run_id")
    return {name: getattr(item, name) for name in same} | {
        "kind": kind,
        "counts": item.counts_sum,
        "duration_s": item.attrs.get("duration_s", (item.stop - item.start) / np.timedelta64(1, "s")),
        "rcr_max": item.attrs.get("rcr_max"),
        **_energies(item),
    }


def _energies(item: Partition) -> dict[str, float]:
    first, last = (item.attrs.get(name) for name in ("channel_start", "channel_stop"))
    if first is None or last is None:
        return {}
    edges = energy_edges(item.start)
    return {"energy_low": float(edges[int(str(first))]), "energy_high": float(edges[int(str(last))])}


def _partition_moment(item: Partition) -> dict[str, object]:
    missing = "" if item.complete else f", incomplete: {item.missing}"
    row = {"what": item.product, "name": item.key, "start": item.start, "stop": item.stop}
    detail = f"{item.n_time} bins" + (f" in {item.boxes} boxes" if item.boxes > 1 else "")
    return row | {"detail": f"{detail}, {item.counts_sum} counts{missing}", "opened_by": _opened_by(item)}


def _opened_by(item: Partition) -> str:
    if item.product == "cal_spectrum":
        return f"archive.calibration({item.key!r})"
    if item.request_id is None:
        return f"archive.cube({item.product!r}, {item.key!r}, {str(np.datetime64(item.day) + 1)!r})"
    method = {"sci_pixel_sums": "pixels"}.get(item.product, item.product.removeprefix("sci_"))
    return f"archive.{method}({item.request_id}, seq_control={item.seq_control})"


def _flare_moment(row: Mapping[str, Any]) -> dict[str, object]:
    known = {"class": row.get("goes_class"), "peak": f"{row['peak_counts']:g} counts"}
    detail = ", ".join(f"{name} {value}" for name, value in known.items() if value)
    times = {"start": row["start"], "stop": row["stop"]}
    opened = f"archive.images({row['flare_id']!r})"
    return {"what": "flare", "name": row["flare_id"], **times, "detail": detail, "opened_by": opened}


def _image_moment(row: Mapping[str, Any]) -> dict[str, object]:
    detail = f"{row['method']}, {row['energy_low']:g}-{row['energy_high']:g} keV, flare {row['flare_id']}"
    times = {"start": row["start"], "stop": row["stop"]}
    return {
        "what": "image", "name": row["image_id"], **times, "detail": detail,
        "opened_by": f"archive.map({row['image_id']!r})",
    }  # fmt: skip


def _calibration_row(item: Partition) -> dict[str, object]:
    same = ("key", "start", "stop", "complete", "missing", "n_bytes", "run_id")
    return {name: getattr(item, name) for name in same} | {"counts": item.counts_sum}


def _frame(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> pd.DataFrame:
    """Return rows as a DataFrame, the given columns in front and of their types even where there is no row."""
    rest = dict.fromkeys(name for row in rows for name in row if name not in columns)
    frame = pd.DataFrame.from_records([dict(row) for row in rows], columns=[*columns, *rest])
    types = dict.fromkeys(_time_columns(rows), _TIME) | {name: kind for name, kind in columns.items() if kind != _TEXT}
    return frame.astype(types)


def _time_columns(rows: Sequence[Mapping[str, Any]]) -> set[str]:
    return {name for row in rows for name, value in row.items() if isinstance(value, (pd.Timestamp, np.datetime64))}
