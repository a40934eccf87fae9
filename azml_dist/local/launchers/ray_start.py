"""The commands that start a Ray cluster: `ray start` on each node."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from azml_dist.local.ports import Ports

if TYPE_CHECKING:
    from azml_dist.model.parts import Ray
    from azml_dist.plan.world import Place


def node_commands(ray: Ray, python: str, place: Place, ports: Ports) -> list[list[str]]:
    """The command that makes each node one of the cluster; its head first. Every port is one that nobody else has."""
    # The working directory may hold a `ray.py`: nothing is imported from there.
    main = "import sys; sys.path[:] = filter(None, sys.path); from ray.scripts.scripts import main; sys.exit(main())"
    start = [python, "-c", main, "start", "--block"]
    head: dict[str, int | str] = {
        "--port": place.ports[0],
        # Two clusters of one machine would both take Ray's own 10001.
        "--ray-client-server-port": ports.take(),
        "--dashboard-port": _dashboard_port(ray, ports),
    }
    if ray.include_dashboard is not None:
        head["--include-dashboard"] = str(ray.include_dashboard).lower()
    commands = []
    for node, address in enumerate(place.addresses):
        options = {"--node-ip-address": address, "--dashboard-agent-listen-port": ports.take()}
        options |= head if node == 0 else {"--address": f"{place.address(0)}:{place.ports[0]}"}
        words = [str(word) for option in options.items() for word in option]
        more = ray.worker_node_additional_args if node else ray.head_node_additional_args
        commands.append([*start, *["--head"] * (node == 0), *words, *shlex.split(more or "")])
    return commands


def _dashboard_port(ray: Ray, ports: Ports) -> int:
    if ray.dashboard_port and ray.include_dashboard is not False:
        return ports.take_exactly(ray.dashboard_port, "Ray's dashboard")
    return ports.take()
