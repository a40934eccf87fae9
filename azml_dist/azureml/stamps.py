"""Time stamps of Azure, which have seven digits after the point: Python 3.10 does not read those."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import datetime, timezone


def seconds_of(stamp: str | None) -> float | None:
    """Seconds since 1970; None for no stamp, and for none that is one."""
    found = re.match(r"(?a)(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?", stamp or "")
    with suppress(ValueError, OverflowError):  # the 45th of a month
        if found:
            return datetime.fromisoformat(found[1]).replace(tzinfo=timezone.utc).timestamp() + float(found[2] or 0)
    return None
