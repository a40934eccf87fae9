"""Which part of a run to download: `--only outputs/model`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from azml_dist.errors import DistError, NotFound
from azml_dist.words import nearest_or_all


class Selection:
    """Everything, or what is at some paths, each a folder or a file as in the downloaded folder.

    A path may contain `*`, which stands for any part of one name: `outputs/model/*.pt`.
    """

    def __init__(self, paths: Iterable[str] = ()) -> None:
        self._wanted = {path: _names_in(path) for path in paths}
        self._found: set[str] = set()
        self._known: dict[str, None] = {}
        """What there is, for the hint of a path with nothing."""
        self._above: Sequence[str] = ()

    def below(self, *folders: str) -> Selection:
        """The same for what is in a folder, by its path there; whatever is noted, is noted for both."""
        inner = Selection()
        inner._wanted, inner._found, inner._known = self._wanted, self._found, self._known
        inner._above = [*self._above, *folders]
        return inner

    def takes(self, path: str) -> bool:
        """Whether a file or a part of the run is wanted. Notes that its path has something."""
        names = self._names_of(path)
        found = [one for one, wanted in self._wanted.items() if _matches(names, wanted, len(wanted))]
        self._found.update(found)
        return bool(found) or not self._wanted

    def takes_some_of(self, folder: str) -> bool:
        """Whether anything in a folder may be wanted."""
        names = self._names_of(folder)
        return not self._wanted or any(_matches(names, wanted, 0) for wanted in self._wanted.values())

    def misses(self, folder: str) -> bool:
        """Whether anything is wanted of a folder that cannot be read; `must_be_found` then does not ask for it."""
        names = self._names_of(folder) if folder else self._above
        left = [one for one in self._wanted if one not in self._found and _matches(names, self._wanted[one], 0)]
        self._found.update(left)
        return bool(left) or not self._wanted

    def must_be_found(self, name: str) -> None:
        """Raises `NotFound` if the run has nothing at one of the paths."""
        if nothing := [one for one in self._wanted if one not in self._found]:
            hint = nearest_or_all(nothing[0], self._known) or "without `--only`, everything is downloaded"
            raise NotFound(f"run {name} has nothing at {' or '.join(f'`{one}`' for one in nothing)}", hint=hint)

    def _names_of(self, path: str) -> Sequence[str]:
        names = [*self._above, *path.split("/")]
        self._known["/".join(names[: len(self._above) + 2])] = None
        return names


def _names_in(path: str) -> Sequence[str]:
    names = [name for name in path.split("/") if name not in ("", ".")]
    if not names or ".." in names or path.startswith("/"):
        hint = "write it as in the downloaded folder: `outputs/model`, `user_logs`, `artifacts/logs/*.csv`"
        raise DistError(f"`--only {path}` is not a path in a run", hint=hint)
    return names


def _matches(names: Sequence[str], wanted: Sequence[str], least: int) -> bool:
    """Whether as many names as both have are the same, and there are at least so many."""
    return len(names) >= least and all(map(fnmatchcase, names, wanted))
