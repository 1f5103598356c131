"""The archive: what analysts open and operators trust.

``archive`` is the door of analysts: behind it ``opening`` finds stores, ``frames``, ``filters`` and ``moments`` make
tables, ``maps`` and ``quantities`` what sunpy and astropy take. Operators have ``releases``, ``garbage``, ``months``,
``verifying``, ``listing`` and ``formats``. All of them ask the ``catalog``, whose parts are ``runs``, ``inputs``,
``findings`` and ``publishing``; its database is ``tables``, ``transactions`` and ``migrations``.
"""

from stixflow.archive.archive import Archive, open_archive
from stixflow.archive.catalog import Catalog
from stixflow.archive.entries import FileEntry, PacketSet, Partition, Quarantined, draft_partition
from stixflow.archive.garbage import Collected, collect
from stixflow.archive.layout import day_key, request_key, store_path
from stixflow.archive.quantities import to_table
from stixflow.archive.releases import (
    REBUILT,
    Scope,
    Switched,
    compare_releases,
    create_release,
    drop_release,
    list_releases,
    switch,
    switch_back,
)

__all__ = [
    "REBUILT",
    "Archive",
    "Catalog",
    "Collected",
    "FileEntry",
    "PacketSet",
    "Partition",
    "Quarantined",
    "Scope",
    "Switched",
    "collect",
    "compare_releases",
    "create_release",
    "day_key",
    "draft_partition",
    "drop_release",
    "list_releases",
    "open_archive",
    "request_key",
    "store_path",
    "switch",
    "switch_back",
    "to_table",
]
