"""Rows of the quota, in the spellings that workspaces have, and what a job needs of them."""

from __future__ import annotations

import pytest

from azml_dist.check import quota
from azml_dist.check.facts import Size, Usage

A100 = Size("Standard_NC24ads_A100_v4", "standardNCADSA100v4Family", 24, 1, 220, 65_536, None)
FAMILY, TOTAL = "Standard NCADSA100v4 Family Cluster Dedicated vCPUs", "Total Cluster Dedicated Regional vCPUs"
LOW, LOW_TOTAL = "Standard NCADSA100v4 Family Cluster LowPriority vCPUs", "Total Cluster Low Priority Regional vCPUs"


def usages(**rows: tuple[int, int]) -> list[Usage]:
    names = {"family": FAMILY, "total": TOTAL, "low": LOW, "low_total": LOW_TOTAL}
    others = [Usage("Total Clusters", 3, 200), Usage("Standard NCASv3_T4 Family Cluster Dedicated vCPUs", 0, 0)]
    return [*others, *(Usage(names[row], used, limit) for row, (used, limit) in rows.items())]


@pytest.mark.parametrize(
    ("spelled", "family"),
    [
        (FAMILY, "standardNCADSA100v4Family"),
        ("Standard NCADS A100 v4 Family Cluster Dedicated vCPUs", "StandardNCADSA100v4Family"),
        ("NCASv3_T4 Family Cluster Dedicated vCPUs", "Standard NCASv3_T4 Family"),
        ("Standard DSv2 Family Cluster Dedicated vCPUs", "standardDSv2Family"),
    ],
)
def test_a_family_is_found_however_it_is_spelled(spelled: str, family: str) -> None:
    size = A100._replace(family=family)

    assert [row.row for row in quota.rows([Usage(spelled, 1, 2)], size, is_spot=False, new_nodes=1)] == [spelled]


@pytest.mark.parametrize("family", ["standardNCFamily", "standardNCADSA100v5Family", ""])
def test_another_family_is_not_taken_for_it(family: str) -> None:
    found = quota.rows(usages(family=(0, 1), total=(0, 2)), A100._replace(family=family), is_spot=False, new_nodes=1)

    assert [row.row for row in found] == [TOTAL]
    assert list(quota.missing_rows(found, A100)) == ["it has no row for the family standardNCADSA100v4Family"]


@pytest.mark.parametrize(
    ("rows", "nodes", "new", "there", "expected"),
    [
        ({"family": (0, 96), "total": (0, 96)}, 4, 4, 0, None),
        ({"family": (0, 72), "total": (0, 96)}, 4, 4, 0, "no-quota"),
        ({"family": (0, 96), "total": (0, 72)}, 4, 4, 0, "no-quota"),
        ({"family": (0, -1), "total": (0, 0)}, 1, 1, 0, "no-quota"),
        ({"family": (0, -1), "total": (0, 24)}, 1, 1, 0, None),
        ({"family": (48, 96), "total": (48, 999)}, 4, 4, 0, "short-quota"),
        ({"family": (48, 96), "total": (48, 999)}, 4, 2, 2, None),
        ({"family": (96, 48), "total": (96, 96)}, 4, 0, 4, None),
        ({"total": (0, 24)}, 2, 2, 0, "no-quota"),
    ],
)
def test_the_smaller_row_decides(
    rows: dict[str, tuple[int, int]], nodes: int, new: int, there: int, expected: str | None
) -> None:
    found = quota.rows(usages(**rows), A100, is_spot=False, new_nodes=new)

    codes = [one.code for one in quota.findings(found, A100, nodes, "compute", there=there)]
    assert codes == ([expected] if expected else [])


def test_spot_nodes_have_rows_of_their_own() -> None:
    given = usages(family=(0, 0), total=(0, 0), low=(0, -1), low_total=(24, 48))

    found = quota.rows(given, A100, is_spot=True, new_nodes=2)

    assert [(row.row, row.needs) for row in found] == [(LOW, 48), (LOW_TOTAL, 48)]
    assert [one.code for one in quota.findings(found, A100, 2, "compute", there=0)] == ["short-quota"]
