"""The whole mission, or a part of it, built again into a release beside what readers see, validated, then switched to.

`asked` is what is wanted, `planning` what that would take, `building` does it, `showing` switches readers to it.
"""

from stixflow.stages.reprocess.asked import Reprocessing
from stixflow.stages.reprocess.building import STAGES, format_reprocess, open_reprocess, run_reprocess
from stixflow.stages.reprocess.planning import plan_reprocess
from stixflow.stages.reprocess.showing import forget_release, format_switched, return_release, switch_release

__all__ = [
    "STAGES",
    "Reprocessing",
    "forget_release",
    "format_reprocess",
    "format_switched",
    "open_reprocess",
    "plan_reprocess",
    "return_release",
    "run_reprocess",
    "switch_release",
]
