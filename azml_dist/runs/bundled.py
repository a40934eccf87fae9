"""`BundledRun`: a run as its bundle has it, a zip or the folder that it was unpacked into. Files are only read."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from azml_dist.errors import DistError, JobError, NotFound
from azml_dist.regular import kind_of, open_inside
from azml_dist.runs.folding import labeller_of
from azml_dist.runs.foot import Seen
from azml_dist.runs.logs import Piece, Reading, Source
from azml_dist.runs.material import FORMAT, INDEX, METRICS, PAGES, STATUS, VERDICT, Material
from azml_dist.runs.metrics import Metrics, Point
from azml_dist.runs.pagefile import card_of, page_of
from azml_dist.runs.run import Run
from azml_dist.runs.target import readable
from azml_dist.show import Card, Facts, Page, Row
from azml_dist.status import RunStatus
from azml_dist.verdict import kept
from azml_dist.verdict.verdict import Verdict

if TYPE_CHECKING:
    from azml_dist.runs.download import Download

T = TypeVar("T")

_MOST_JSON, _MOST_LOG, _MOST_LOGS = 64_000_000, 8_000_000, 512_000_000
"""Bytes to unpack: of a JSON file, of a log, of all logs. What a bundle really has is much less."""
_MOST_ENTRIES = 100_000


def is_bundle(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a zip or a folder with a bundle."""
    return _base_of(Path(path)) is not None


class BundledRun(Run):
    """What a bundle says about its run. Nothing in it can be cancelled or downloaded."""

    is_bundle = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Raises `NotFound` if there is no bundle, and `DistError` if it is damaged."""
        self._path = Path(path)
        base = _base_of(self._path)
        if base is None:
            raise NotFound(f"{readable(str(path))} is not a bundle", hint="`azml-dist bundle NAME` makes one")
        self._base = base
        self._index = self._json(INDEX)
        if not isinstance(self._index.get("format"), int) or self._index["format"] > FORMAT:
            raise self._damaged("it was made by a newer version of azml_dist")
        self.name = str(self._index.get("name"))

    @property
    def status(self) -> RunStatus:
        return RunStatus(str(self._index.get("status")))

    @property
    def url(self) -> str:
        return self._path.resolve().as_uri()

    @property
    def outputs(self) -> Mapping[str, Path | str]:
        return {}

    def wait(self, timeout: float | None = None, *, max_wait: float | None = None) -> Run:
        if not self.status.is_final:
            self._refuse("cannot be waited for")
        return self

    def verdict(self) -> Verdict | None:
        return kept.read(self._json(VERDICT, needed=False), self._index.get("attempt"))

    def _ending(self, verdict: Verdict | None, in_full: bool) -> Card:
        card = self._shown("in full" if in_full else "ending", card_of)
        rows = [row._replace(text=self._renamed(row.text)) for row in card.rows]
        return card._replace(rows=[*rows, Row("bundle", self._about(), whole=True)])

    def job(self) -> Any:
        raise JobError(f"{self._path} is a bundle", hint="`job.yml` in it is the job: unpack it")

    def rerun(self, *_: Any, **__: Any) -> NoReturn:
        self._refuse("cannot run again: it has no code")

    def page(self) -> NoReturn:
        self._refuse("has only the ends of its logs: `azml-dist page` needs the run")

    def watching(self, ranks: Collection[int] | None = None) -> Callable[[], Seen]:
        return lambda: Seen(self.name, str(self.status).lower())

    def cancel(self, *, reason: str | None = None) -> None:
        self._refuse("cannot be cancelled")

    def fetch(self, folder: str | Path, *, only: Iterable[str] = (), so_far: bool = False) -> Download:
        self._refuse("has no outputs to download")

    def metrics(self) -> Metrics:
        data = self._json(METRICS, needed=False)
        try:
            found = {name: [_point(*values) for values in one["points"]] for name, one in data.items()}
            return Metrics({name: _float(data[name]["last"]) for name in found}, found.__getitem__, self.name)
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            raise self._damaged(f"{METRICS}: {error}") from error

    def _processes(self) -> Sequence[Source]:
        try:
            return [
                Source(int(one["rank"]), int(one["node_rank"]), str(one["role"]), str(one["member"]))
                for one in self._index["processes"]
            ]
        except (TypeError, ValueError, LookupError) as error:
            raise self._damaged(f"{INDEX}: {error}") from error

    def _read(self, how: Reading) -> Iterator[bytes]:
        """The kept lines, in the order in which they arrived if the run knew it."""
        sources = self._processes()
        labeller = labeller_of(how, sources)
        wanted = [n for n, source in enumerate(sources) if how.ranks is None or source.rank in how.ranks]
        for number, attempt, line in self._lines(wanted, how.tail):
            yield labeller.label(Piece(number, line, attempt))
        yield labeller.end()

    def _lines(self, wanted: Sequence[int], tail: int | None) -> Iterator[tuple[int, int, bytes]]:
        try:
            logs = [one for one in self._index["logs"] if one["rank"] in wanted]
            places = {id(one): number for number, one in enumerate(self._index["logs"])}
            order = [(int(number), int(count)) for number, count in self._index["order"]]
            attempts = sorted({int(one["attempt"]) for one in logs})
        except (TypeError, ValueError, LookupError) as error:
            raise self._damaged(f"{INDEX}: {error}") from error
        texts = self._texts(logs)
        for attempt in attempts:
            last = attempt == attempts[-1]
            of_it = {places[id(one)]: one for one in logs if one["attempt"] == attempt}
            lines = {number: deque(texts[str(one["path"])].splitlines(keepends=True)) for number, one in of_it.items()}
            if tail is not None:
                kept_lines = {number: len(found) - (tail if last else 0) for number, found in lines.items()}
            else:
                kept_lines = dict.fromkeys(lines, 0)
            for number, line in _in_order(lines, order):
                kept_lines[number] -= 1
                if kept_lines[number] < 0:
                    yield int(of_it[number]["rank"]), attempt, line

    def _texts(self, logs: Sequence[Mapping[str, Any]]) -> dict[str, bytes]:
        left, found = _MOST_LOGS, {}
        for one in logs:
            path = str(one["path"])
            found[path] = self._bytes(path, min(left, _MOST_LOG))
            left -= len(found[path])
        return found

    def describe(self) -> dict[str, Any]:
        about = {name: self._index.get(name) for name in ("made_at", "azml_dist", "removed", "notes")}
        return {**self._json(STATUS), "bundle": {"file": str(self._path), **about}}

    def _page(self) -> Page:
        page = self._shown("status", page_of)
        blocks = [self._with_path(one) if isinstance(one, Card) else one for one in page.blocks]
        return page._replace(blocks=[*blocks, Facts([("bundle", self._about())])])

    def _with_path(self, card: Card) -> Card:
        return card._replace(rows=[row._replace(text=self._renamed(row.text)) for row in card.rows])

    def _renamed(self, text: str) -> str:
        """A command to type next, for the bundle instead of its run."""
        if not text.startswith("azml-dist "):
            return text
        return re.sub(rf" {re.escape(self.name)}(?![\w.-])", lambda _: f" {self._path}", text, count=1)

    def _about(self) -> str:
        made = self._index.get("made_at")
        when = time.strftime(" of %Y-%m-%d %H:%M", time.localtime(made)) if isinstance(made, int | float) else ""
        return f"{self._path}{when}"

    def _shown(self, name: str, read: Callable[[Any], T]) -> T:
        pages = self._json(PAGES)
        try:
            return read(pages.get(name))
        except ValueError as error:
            raise self._damaged(f"{PAGES}: {error}") from error

    def __repr__(self) -> str:
        return f"<BundledRun {self.name}: {self._path}>"

    def _material(self) -> Material:
        self._refuse("is one already")

    def _refuse(self, what: str) -> NoReturn:
        raise DistError(f"{self._path} is the bundle of run {self.name}, which {what}", hint="use the run itself")

    def _json(self, name: str, *, needed: bool = True) -> dict[str, Any]:
        data = self._bytes(name, _MOST_JSON, needed=needed)
        try:
            value = json.loads(data or b"{}")
        except (ValueError, RecursionError) as error:
            raise self._damaged(f"{name}: {error}") from error
        if not isinstance(value, dict):
            raise self._damaged(f"{name} is not an object")
        return value

    def _bytes(self, name: str, most: int, *, needed: bool = True) -> bytes:
        """The content of a file of it; never one outside it."""
        try:
            if kind_of(self._path) == "folder":
                with open(open_inside(self._path, self._base + name), "rb") as file:
                    data = file.read(most + 1)
            else:
                data = _member(self._path, self._base + name, most + 1)
        except FileNotFoundError as error:
            if needed:
                raise self._damaged(f"it has no {readable(name)}") from error
            return b""
        except OSError as error:
            raise self._damaged(f"{readable(name)}: {error}") from error
        if len(data) > most:
            raise self._damaged(f"{readable(name)} has more than {most:,} bytes")
        return data

    def _damaged(self, why: str) -> DistError:
        return DistError(f"cannot read the bundle {self._path}: {why}", hint="ask for it again, or use the run itself")


def _point(step: Any, value: Any, time: Any) -> Point:
    return Point(int(step), _float(value), float(time))


def _float(value: Any) -> float:
    """A number of JSON, which has no NaN, and null for it."""
    return float("nan") if value is None else float(value)


def _in_order(lines: dict[int, deque[bytes]], order: Iterable[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
    """The lines of several logs in their common order, then those that are not in it, log by log."""
    for number, count in order:
        for _ in range(min(count, len(lines.get(number, ())))):
            yield number, lines[number].popleft()
    for number, left in lines.items():
        for line in left:
            yield number, line


def _base_of(path: Path) -> str | None:
    """Where the index is in a bundle: at its top, or in its only folder; None if it is no bundle."""
    try:
        if kind_of(path) == "folder":
            return "" if (path / INDEX).is_file() else None
        names = _names(path) if kind_of(path) == "file" else []
    except OSError:
        return None
    found = [name for name in names if name.rpartition("/")[2] == INDEX and name.count("/") <= 1]
    return min(found, key=len).removesuffix(INDEX) if found else None


def _names(path: Path) -> list[str]:
    with _opened(path) as archive:
        names: list[str] = archive.namelist()[:_MOST_ENTRIES]
        return names


def _member(path: Path, name: str, most: int) -> bytes:
    with _opened(path) as archive:
        try:
            with archive.open(name) as member:
                data: bytes = member.read(most)
                return data
        except KeyError as error:
            raise FileNotFoundError(name) from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A zip; whatever is wrong with it is an `OSError`."""
    import zipfile  # takes milliseconds, and hardly any run is in a zip
    import zlib

    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, ValueError) as error:
        raise OSError(str(error)) from error
