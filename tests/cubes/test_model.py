from __future__ import annotations

import numpy as np
import pytest

from stixflow.cubes.model import PRODUCTS, Product

ORDER = ("time", "energy", "adc", "detector", "pixel", "accumulator", "pixel_set", "flare")


@pytest.mark.parametrize("product", PRODUCTS.values(), ids=list(PRODUCTS))
class TestProducts:
    def test_dimensions_keep_their_order(self, product: Product) -> None:
        for variable in product.variables.values():
            places = [ORDER.index(dim) for dim in variable.dims]
            assert places == sorted(places)

    def test_every_number_has_a_unit_and_a_name(self, product: Product) -> None:
        for variable in product.variables.values():
            assert variable.long_name
            assert variable.units or variable.dtypes == ("datetime64[ns]",)

    def test_types_are_types(self, product: Product) -> None:
        for variable in product.variables.values():
            assert [str(np.dtype(name)) for name in variable.dtypes] == list(variable.dtypes)

    def test_layout_cuts_dimensions_that_exist_into_whole_shards(self, product: Product) -> None:
        dims = {dim for variable in product.variables.values() for dim in variable.dims}
        assert "time" in product.layout.chunks
        if product.name != "ephemeris":
            assert set(product.layout.chunks) <= dims
        if product.layout.shard_time is not None:
            assert product.layout.shard_time % product.layout.chunks["time"] == 0

    def test_clock_and_utc_are_kept_side_by_side(self, product: Product) -> None:
        assert {"time", "scet"} <= set(product.variables)
