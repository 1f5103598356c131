"""Marks of what was done that a release must understand; other stages name theirs for themselves.

A mark is a row of the table `done`: a stage, an item, and the digest of what it was made from.
"""

from __future__ import annotations

SEARCHED = "flares"
"""Of a partition of light curves, by its id: flares were searched in it."""
IMAGED = "images"
"""Of a flare: what can be imaged of it was."""
FILE_HAS_MORE = "cubes of packets with fewer bins than an official file"
"""Of a product and key: its cube is that of an official file, as long as there are no more packets."""
