"""The units of work: one function each, idempotent, frozen arguments in, one small record out.

`frame` sorts the packets of one input file into packet sets, `build` makes one partition from its packet sets,
`detect` finds the flares of one day, `image` images one flare. Any of them may run twice, on any worker; none of them
sees the catalog.
"""

from stixflow.jobs.build import BuildJob, Built, build
from stixflow.jobs.detect import DetectJob, detect
from stixflow.jobs.frame import (
    UNDECODED,
    AncillaryJob,
    Framed,
    FrameJob,
    frame,
    keep_ancillary,
)
from stixflow.jobs.image import Imaged, ImageJob, NotImaged, image, image_together
from stixflow.jobs.kept import Refused
from stixflow.jobs.official import (
    HEADER_CLOCK,
    OfficialBooks,
    OfficialFile,
    OfficialJob,
    keep_official,
)

__all__ = [
    "HEADER_CLOCK",
    "UNDECODED",
    "AncillaryJob",
    "BuildJob",
    "Built",
    "DetectJob",
    "FrameJob",
    "Framed",
    "ImageJob",
    "Imaged",
    "NotImaged",
    "OfficialBooks",
    "OfficialFile",
    "OfficialJob",
    "Refused",
    "build",
    "detect",
    "frame",
    "image",
    "image_together",
    "keep_ancillary",
    "keep_official",
]
