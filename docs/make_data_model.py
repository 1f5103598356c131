"""Write docs/data-model.md from the schema: ``python docs/make_data_model.py``; a test keeps the two equal."""

from __future__ import annotations

from pathlib import Path

from stixflow.cubes.model import DATA_MODEL_VERSION, PRODUCTS, Product

_INTRO = f"""# Data model, version {DATA_MODEL_VERSION}

*Made from `stixflow/cubes/model.py` by `python docs/make_data_model.py`.*

A cube is an `xarray.Dataset` in one immutable Zarr v3 store. Dimensions are always in the order `time, energy,
detector, pixel`; intervals are half-open, `[start, stop)`.

- `time` is the **centre** of a bin, in UTC; `time_start` and `timedel` (seconds) stand beside it. The onboard clock
  of the bin start is kept as `scet`, so a better clock kernel can redo UTC without the packets.
- `energy` is the centre of a bin in keV, with its nominal edges `energy_low` and `energy_high` and the half-open
  range of science channels `channel_start`, `channel_stop` that it sums.
- Counts are decompressed. The error of the onboard compression depends only on the value and the scheme, so the
  scheme is stored (`counts_skm`, `triggers_skm`) and the error is computed when it is needed:
  `stixflow.telemetry.compression`.
- Missing is not zero. A day cube has no row for a bin that was not received; in a pixel cube `observed` tells which
  energy bins were received at each time, and the masks tell which detectors and pixels were sent. A lost object of
  a store is an error, never zeros.
- A request with several time or energy boxes has one Dataset per box, never a padded one.
- `sci_pixels` holds single pixels, sent raw (SSID 20) or compressed (SSID 21); the attribute `ssid` tells. Raw data
  name no energies: the cube has every channel from the lowest to the highest with counts. Pixels that were summed
  on board (SSID 22) are `sci_pixel_sums`, a product of its own, because nothing made for single pixels may take a
  set for one: its `pixel` counts the sets, `pixel_set` says which pixels each sums.
- `sci_visibilities` (SSID 23) are NaN where a detector was not sent, and in the part whose number was too large for
  its code.
- `ql_spectra` has one row for each sweep, what all detectors counted in one integration; `observed` tells which
  detectors were received.
- `cal_spectrum` keeps the subspectra as they were sent, one after the other along `adc`.
- Housekeeping has engineering values under the name of the parameter (temperatures in degrees Celsius) and
  `<name>_raw` beside them; parameters without a calibration are raw only. Instants (`hk_mini`, `hk_maxi`,
  `tm_status`, `ephemeris`) have no `timedel`.
- Corrections of level 1 are steps with a name, made or left out by an argument of the builder
  (`stixflow.cubes.corrections`) and recorded in the attribute `corrections`: `missing_detectors` and
  `calibration_units` are made unless told otherwise, `shifted_durations`, which drops the first and last bins, only
  when asked for.

Every Dataset carries the attributes `product`, `level`, `data_model_version`; most also `books`, where their counts
went; a request also `request_id`, `seq_control`, `ssid`, `box`, `boxes`, `complete` and `missing`.
"""


_PARTITIONS = {"day": "UTC day", "request": "science request", "run": "calibration run"}


def _table(product: Product) -> str:
    rows = [
        f"| `{name}` | {', '.join(variable.dims)} | {' or '.join(variable.dtypes)} | {variable.units or '-'}"
        f" | {variable.long_name} |"
        for name, variable in product.variables.items()
    ]
    sizes = ", ".join(f"{dim} = {size}" for dim, size in product.fixed_sizes.items())
    head = f"## `{product.name}`\n\nOne partition is one {_PARTITIONS[product.partition]}."
    head += f" Fixed sizes: {sizes}." if sizes else ""
    return "\n".join(
        [head, "", "| variable | dimensions | type | units | meaning |", "|---|---|---|---|---|", *rows, ""]
    )


def data_model_page() -> str:
    """Return the page as text."""
    return "\n".join([_INTRO, *(_table(product) for product in PRODUCTS.values())])


if __name__ == "__main__":
    Path(__file__).with_name("data-model.md").write_text(data_model_page())
