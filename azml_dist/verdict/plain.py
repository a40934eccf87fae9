"""Reads untrusted pickles without running code: only plain values are accepted.

torch writes the dumps of its Flight Recorder as pickles. A pickle may name any function and have it called; those of
the recorder name none, so one that does is refused, with the name in the error.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

from azml_dist.errors import DistError

_MOST = 256_000_000
"""Bytes of a dump; the recorder's default of 2,000 entries takes less than 2 million."""


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it names {module}.{name}, and plain values name nothing")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to something outside itself")


def read_plain(data: bytes, of: str = "the dump") -> Any:
    """The value of a pickle of dicts, lists, tuples, texts and numbers. Raises `DistError` for any other."""
    if len(data) > _MOST:
        raise DistError(f"{of} has {len(data):,} bytes, and {_MOST:,} are read", hint="dumps of torch are far smaller")
    try:
        return _Plain(io.BytesIO(data)).load()
    except RecursionError:
        why = "it is nested too deeply"
    except MemoryError:
        why = "it claims to be larger than this machine's memory"
    except Exception as error:  # a pickle that is damaged can raise anything
        why = str(error) or type(error).__name__
    raise DistError(
        f"{of} is not a dump of torch's Flight Recorder: {why}",
        hint="only plain values are read from a pickle, because others could run code",
    )
