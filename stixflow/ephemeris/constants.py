"""Lengths, the speed of light and the axis of the Sun: what places spacecraft and flares."""

from __future__ import annotations

import numpy as np

AU_M = 149_597_870_700.0
R_SUN_M = 695_700_000.0
"""Nominal radius of the Sun (IAU 2015 resolution B3)."""
LIGHT_SPEED_M_S = 299_792_458.0

_POLE_RA, _POLE_DEC = np.deg2rad(286.13), np.deg2rad(63.87)
SOLAR_POLE = np.array([np.cos(_POLE_DEC) * np.cos(_POLE_RA), np.cos(_POLE_DEC) * np.sin(_POLE_RA), np.sin(_POLE_DEC)])
"""North pole of the Sun, ICRS (IAU)."""
SOLAR_NODE = np.array([-np.sin(_POLE_RA), np.cos(_POLE_RA), 0.0])
"""Where the equator of the Sun rises above that of ICRS: the prime meridian counts from there."""
MERIDIAN_DEG, MERIDIAN_DEG_A_DAY = 84.176, 14.1844
"""Prime meridian of the Carrington frame at J2000, and how far it turns in a day."""
