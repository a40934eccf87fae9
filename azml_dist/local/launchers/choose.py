"""Chooses what starts the processes and learns how each ended: torchrun, mpirun, or the supervisor itself.

A launcher reports to its run through `started` and `ended`; the rest of the run does not depend on which one it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from azml_dist.local.launchers.direct import Direct
from azml_dist.local.launchers.launcher import Launcher, Reports

if TYPE_CHECKING:
    from azml_dist.local.launchers.torchrun import Host, Torchrun
    from azml_dist.local.spec import Spec


def make_launcher(spec: Spec, run: Reports, host: Host | None) -> Launcher:
    """The launcher named in the specification; `host` is what `start_ahead` has started."""
    if spec["launcher"] == "ray":
        from azml_dist.local.launchers.ray_cluster import RayCluster

        return RayCluster(spec, run)
    if spec["launcher"] == "torchrun":
        return _torchrun()(spec, run, host or start_ahead(spec["python"], spec["temp"]))
    if spec["launcher"] == "mpirun":
        from azml_dist.local.launchers.mpirun import Mpirun

        return Mpirun(spec, run)
    return Direct(spec, run)


def start_ahead(python: str, temp: str) -> Host:
    """Start what torchrun needs before its run is known; raises `LaunchFailed`."""
    return _torchrun().start_host(python, temp)


def _torchrun() -> type[Torchrun]:
    from azml_dist.local.launchers.torchrun import Torchrun

    return Torchrun
