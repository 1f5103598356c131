"""One immutable Zarr v3 store per partition and run: the one gate for writing, strict opening, verification.

A store holds one group per box (``0``, ``1``, ...), consolidated metadata at its root, and ``manifest.json``: length
and SHA-256 of every object, and the digest of those lines, which is the digest of the store. The manifest is written
last, so a store without one is what a killed writer left behind. On a local disk the store appears by one rename.
"""

from stixflow.cubes.store.manifest import MANIFEST, count_boxes, is_there, which_are_there
from stixflow.cubes.store.reading import open_joined, open_store
from stixflow.cubes.store.verifying import Defect, verify_store
from stixflow.cubes.store.writing import StoreRecord, delete_store, write_store

__all__ = [
    "MANIFEST",
    "Defect",
    "StoreRecord",
    "count_boxes",
    "delete_store",
    "is_there",
    "open_joined",
    "open_store",
    "verify_store",
    "which_are_there",
    "write_store",
]
