"""vCPUs of a region: how many are in use, by row of the quota, and whether more may be allocated."""

from __future__ import annotations

from azml_dist.emulator.state import TOTAL_DEDICATED, TOTAL_LOW, Cluster, VmSize, Workspace, family_row


def in_use(here: Workspace, row: str) -> int:
    """vCPUs of this workspace's own clusters: nodes count while they are there, whatever they do."""
    return sum(
        cluster.allocated * size.v_cpus
        for cluster in here.computes.values()
        if (size := _size(here, cluster)) and cluster.kind == "AmlCompute" and row in _rows(cluster, size)
    )


def lacking(here: Workspace, cluster: Cluster, nodes: int) -> str | None:
    """The row of the quota that does not let a cluster grow to run that many nodes more; None if all do."""
    size = _size(here, cluster)
    more = max(0, nodes - cluster.idle_nodes)
    if size is None or not more:
        return None
    for row in _rows(cluster, size):
        elsewhere, limit = here.quota.get(row, (0, -1))
        left = limit - elsewhere - in_use(here, row)
        if limit >= 0 and more * size.v_cpus > left:
            return f"{row} has {max(0, left)} vCPUs left, and {more} nodes more need {more * size.v_cpus}."
    return None


def _size(here: Workspace, cluster: Cluster) -> VmSize | None:
    return next((size for size in here.vm_sizes if size.name.lower() == cluster.vm_size.lower()), None)


def _rows(cluster: Cluster, size: VmSize) -> tuple[str, str]:
    """A family's row and the region's total: both gate."""
    low = cluster.priority != "Dedicated"
    return family_row(size.family, "LowPriority" if low else "Dedicated"), TOTAL_LOW if low else TOTAL_DEDICATED
