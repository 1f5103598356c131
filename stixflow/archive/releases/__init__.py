"""Releases: what analysts pin, what is built beside what readers see, and how it takes its place."""

from stixflow.archive.releases.candidate import begin_candidate, candidate_plan, mark_validated
from stixflow.archive.releases.compare import compare_releases
from stixflow.archive.releases.kept import create_release, drop_release, list_releases
from stixflow.archive.releases.plan import REBUILT, CandidatePlan, Scope
from stixflow.archive.releases.switching import Switched, switch, switch_back
from stixflow.archive.releases.taking import adopt, take_over

__all__ = [
    "REBUILT",
    "CandidatePlan",
    "Scope",
    "Switched",
    "adopt",
    "begin_candidate",
    "candidate_plan",
    "compare_releases",
    "create_release",
    "drop_release",
    "list_releases",
    "mark_validated",
    "switch",
    "switch_back",
    "take_over",
]
