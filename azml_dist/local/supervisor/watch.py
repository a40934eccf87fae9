"""The supervisor's side of the watch: when to check a run for progress, and what to do if there is none."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from azml_dist.local import processes
from azml_dist.local.launchers.starting import LaunchFailed, spawn
from azml_dist.local.state import NOTHING_MOVED
from azml_dist.regular import read_regular

if TYPE_CHECKING:
    from azml_dist.local.spec import Spec

HANG = "hang.json"
_MOST = 16_000_000
_AGAIN = 10.0
"""Seconds between two looks at a hung run."""
_LONGEST = 30.0
"""The timeout of a look in seconds."""
_LAST_LOOK = 10.0
_LAST_LOOK_AFTER = 2.0
"""Seconds of silence after which to look at a run before its timeout ends it."""
_PACKAGE = str(Path(__file__).resolve().parents[3])
_CODE = (
    f"import sys; sys.path.insert(0, {_PACKAGE!r}); from azml_dist.local.watch.moving import main; main(*sys.argv[1:])"
)


class Watch:
    """Looks at a silent run: at half of `stall_after`, at the end of it, and from then on while it hangs.

    A look is a separate process, so that the supervisor keeps reading pipes; while lines arrive, there is none.
    """

    def __init__(self, spec: Spec) -> None:
        timeout, after = spec["stall_timeout"], spec["stall_after"]
        self._timeout = timeout
        self._after = min(filter(None, (after, timeout)), default=0.0)
        self._folder = Path(spec["folder"])
        self._scratch = Path(spec["temp"], "looks")
        self._since = time.monotonic()
        """When progress was last seen."""
        self._heard = self._since
        self._next = self._since + self._after / 2
        self._pid: int | None = None
        self._begun = 0.0
        self._last_until: float | None = None
        """The deadline of the last look at a run that is about to be ended."""
        self._is_last = False
        """Whether the look that was started last is that one."""
        self.hang: dict[str, Any] | None = None
        """The diagnosis of a hung run."""
        self.waits = ""
        """Which ranks waited for which when a run that made progress was about to be ended; empty if none did."""

    def moved(self) -> None:
        """A line was written, or a process started."""
        self._heard = time.monotonic()

    def turn(self, ended: list[tuple[int, int]], now: float) -> str | None:
        """Start a look if it is due; returns why to end the run if it has hung for too long."""
        if not self._after:
            return None
        if self._heard > self._since:
            self._moves(self._heard)
            with contextlib.suppress(OSError):
                (self._scratch / "seen.json").unlink()
        if self._pid is not None and any(pid == self._pid for pid, _ in ended):
            self._pid = None
            self._take(now)
        if self._pid and now > self._begun + _LONGEST:
            processes.send([self._pid], 9)
        if self._pid is None and now >= self._next:
            self._look(now)
        if self._timeout and self.hang and now >= self._since + self._timeout:
            return f"{NOTHING_MOVED} {self._timeout:g} s{_summary(self.hang)}"
        return None

    def is_ready_to_end(self, now: float) -> bool:
        """Whether the timeout may end the run: a silent run gets one more look first."""
        if not self._after or self.hang or now < self._heard + _LAST_LOOK_AFTER:
            return True
        if self._last_until is None:
            self._last_until, self._next = now + _LAST_LOOK, now
        return now > self._last_until

    def close(self, *, has_hung: bool) -> None:
        """The run has ended: keep the diagnosis if it hung until then."""
        if not has_hung:
            self._forget()

    def _moves(self, at: float) -> None:
        self._since, self._next, self.waits = at, at + self._after / 2, ""
        if self._last_until is not None:
            self._last_until = 0.0
        self._forget()

    def _forget(self) -> None:
        if self.hang is not None:
            self.hang = None
            with contextlib.suppress(OSError):
                (self._folder / HANG).unlink()

    def _look(self, now: float) -> None:
        self._begun, self._next = now, float("inf")
        # torch needs some seconds for lines of code at the first request, so they come with the second look.
        how = "j" if self.hang is None else "p"
        self._is_last = bool(self._last_until)
        last = ["last"] if self._is_last else []
        argv = [sys.executable, "-I", "-S", "-c", _CODE, str(self._folder), str(self._scratch), how, *last]
        with contextlib.suppress(OSError, LaunchFailed):
            self._scratch.mkdir(exist_ok=True)
            log = os.open(self._scratch / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            try:
                self._pid = spawn(argv, "/", dict(os.environ), log)
            finally:
                os.close(log)

    def _take(self, now: float) -> None:
        """The result of a look, unless a rank wrote something meanwhile."""
        result = self._result()
        if self._heard >= self._begun:
            return
        if result.get("is") == "moving" and self._last_until and not self._is_last:
            self._next = now  # that look began before the timeout
        elif result.get("is") == "moving":
            self._moves(self._begun)
            self.waits = str(result.get("waits") or "")
        elif result.get("is") == "still" and (now >= self._since + self._after or self._last_until):
            self._hangs(result)
            self._next = now + min(_AGAIN, self._after)
        else:
            soon = now + min(0.5, self._after / 4)
            self._next = soon if self._last_until else max(soon, self._since + self._after)

    def _result(self) -> dict[str, Any]:
        path = self._scratch / "result.json"
        try:
            result = json.loads(read_regular(path, _MOST))
            path.unlink()
        except (OSError, ValueError):
            # It failed: keep its output for whoever looks for the reason.
            with contextlib.suppress(OSError):
                shutil.copyfile(self._scratch / "log.txt", self._folder / "system_logs" / "watch.txt")
            return {}
        return result if isinstance(result, dict) else {}

    def _hangs(self, result: dict[str, Any]) -> None:
        """Store the diagnosis for readers, whenever it changes."""
        seen = {"verdict": result.get("verdict"), "stacks": result.get("stacks")}
        if self.hang is not None and _gist(self.hang) == _gist(seen):
            return
        self.hang = seen
        after = round(time.monotonic() - self._since, 1)
        draft = self._folder / f".{HANG}.new"
        with contextlib.suppress(OSError):
            draft.write_text(json.dumps({"still_for": after, **seen}))
            draft.replace(self._folder / HANG)


def _gist(seen: dict[str, Any]) -> Any:
    verdict = seen.get("verdict") or {}
    return [verdict.get(key) for key in ("summary", "ranks", "file", "line")]


def _summary(hang: dict[str, Any]) -> str:
    summary = (hang.get("verdict") or {}).get("summary")
    return f": {summary}" if summary else ""
