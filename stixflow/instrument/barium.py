"""Lines of the 133Ba sources that the instrument carries for its calibration."""

from __future__ import annotations

from types import MappingProxyType

X_RAYS_ALPHA = MappingProxyType({30.6254: 33.8, 30.9731: 62.4})
"""keV -> photons in a hundred decays: the K-alpha X-rays of caesium, which no pixel resolves."""
ALPHA = 30.851
"""keV: their centroid."""

X_RAYS_BETA = MappingProxyType({34.967: 16.9, 35.82: 4.0})
"""K-beta 1 and 3 together, and K-beta 2 with the share that puts the centroid of the group where it is measured."""
BETA = 35.13
"""keV: their centroid."""

GAMMA = 80.9979
"""keV: the gamma line."""
GAMMA_LINES = MappingProxyType({GAMMA: 32.9, 79.6142: 2.65})
"""The gamma line, and the faint one at its foot."""

__all__ = ["ALPHA", "BETA", "GAMMA", "GAMMA_LINES", "X_RAYS_ALPHA", "X_RAYS_BETA"]
