"""The archive: what analysts open and operators trust."""

from stixflow.archive.archive import Archive, open_archive
from stixflow.archive.catalog import Catalog, FileEntry, PacketSet, Partition, Quarantined, draft_partition
from stixflow.archive.layout import day_key, request_key, store_path

__all__ = [
    "Archive",
    "Catalog",
    "FileEntry",
    "PacketSet",
    "Partition",
    "Quarantined",
    "day_key",
    "draft_partition",
    "open_archive",
    "request_key",
    "store_path",
]
