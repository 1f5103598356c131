"""Many items, many processes: `open_cluster` starts workers, `map_batches` feeds them and accounts for every item.

The only room that imports `distributed` and what starts its workers elsewhere. Where workers run is a *profile*, a TOML
file (`load_profile`): processes of this machine, a running scheduler, SLURM, or Kubernetes.
"""

from stixflow.compute.batches import Outcome, map_batches
from stixflow.compute.cost import Cost
from stixflow.compute.launch import open_cluster, open_engine
from stixflow.compute.memory import refuse_too_large
from stixflow.compute.pools import Cluster, Pool, Serial, WorkerLost
from stixflow.compute.profiles import load_profile, profile_names
from stixflow.compute.show import show_profile, try_profile

__all__ = [
    "Cluster",
    "Cost",
    "Outcome",
    "Pool",
    "Serial",
    "WorkerLost",
    "load_profile",
    "map_batches",
    "open_cluster",
    "open_engine",
    "profile_names",
    "refuse_too_large",
    "show_profile",
    "try_profile",
]
