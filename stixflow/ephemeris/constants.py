"""Lengths and the speed that place the spacecraft and the Sun."""

from __future__ import annotations

AU_M = 149_597_870_700.0
R_SUN_M = 695_700_000.0
"""Nominal radius of the Sun (IAU 2015 resolution B3)."""
LIGHT_SPEED_M_S = 299_792_458.0
