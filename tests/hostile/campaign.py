"""Runs bad inputs in forked copies of one warm process, and judges how each call ended."""

from __future__ import annotations

import atexit
import importlib
import os
import pkgutil
import pwd
import random
import re
import resource
import shlex
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import azml_dist
from hostile.cases import MAKERS, Call

SECONDS, WALL, MEGABYTES = 10, 60, 500
"""Of CPU, and by the clock, which other programs of the machine take part of; and of memory."""
MARK = "AZML_DIST_HOSTILE"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_JOB = """\
command: echo hi; mkdir outputs; touch outputs/f ${{outputs.o}}/f
name: good
outputs: {o: {type: uri_folder}}
"""
_SWEEP = """\
type: sweep
name: sweep
trial: {command: 'echo ${{search_space.a}}'}
objective: {goal: minimize, primary_metric: m}
sampling_algorithm: grid
search_space: {a: {type: choice, values: [1, 2]}}
limits: {max_total_trials: 2}
"""
_FINDING = re.compile(r'^error +\S.*\n.*^hint +\S|"level": "error"', re.M | re.S)
"""What a plan that means something, and would certainly fail, is refused with."""
_MAY_FAIL = ("run", "logs", "cancel", "download")
"""Commands that exit with 1 where the run that they are about failed, or is not all there."""


class Result(NamedTuple):
    """How a call ended, and what is wrong with that."""

    number: int
    maker: str
    what: str
    code: int
    seconds: float
    megabytes: float
    out: str
    err: str
    complaints: list[str]


class Campaign:
    """Bad inputs by number; the same seed and number make the same input."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder, self._seed = folder.resolve(), seed
        for module in pkgutil.walk_packages(azml_dist.__path__, "azml_dist."):
            if ".azureml" not in module.name and "__main__" not in module.name:
                importlib.import_module(module.name)
        self._runs = self._folder / "runs"
        self._make_runs()

    def show(self, number: int) -> str:
        """All that one input makes the command line say."""
        r = self.run(number)
        return f"{r.what}\n--- stdout\n{r.out[-6000:]}\n--- stderr\n{r.err[-6000:]}\n--- {r.code}: {r.complaints}"

    def run(self, number: int) -> Result:
        """Make the input with that number, and call the command line with it."""
        random_ = random.Random(f"{self._seed} {number}")
        maker = random_.choices([m for m, _ in MAKERS], [weight for _, weight in MAKERS])[0]
        folder = self._folder / f"case{number}"
        for name in ("work/src", "work/empty", "home", "tmp"):
            (folder / name).mkdir(parents=True)
        (folder / "work/src/t.py").write_text("print(1)\n")
        os.mkfifo(folder / "work/fifo")
        (folder / "work/loop").symlink_to("loop")
        shutil.copytree(self._runs, folder / "runs")
        call = maker(random_, folder)
        result = self._judged(number, maker.__name__, call, folder)
        shutil.rmtree(folder, ignore_errors=True)
        return result

    def left_running(self) -> list[int]:
        """Processes of the campaign that live on."""
        deadline = time.monotonic() + 10
        while (found := _marked(str(self._folder))) and time.monotonic() < deadline:
            time.sleep(0.1)
        return found

    def _make_runs(self) -> None:
        """A run and a sweep that ended well, to be damaged."""
        work = self._folder / "first/work"
        for name in ("work", "home", "tmp"):
            (self._folder / "first" / name).mkdir(parents=True)
        (work / "job.yml").write_text(_JOB)
        (work / "sweep.yml").write_text(_SWEEP)
        for file in ("job.yml", "sweep.yml"):
            call = Call(["run", file, "--launcher", "direct", "--root", str(self._runs)])
            code, _, _, err = self._call(call, self._folder / "first")
            assert code in (0, 1), err  # the sweep logs no metric

    def _judged(self, number: int, maker: str, call: Call, folder: Path) -> Result:
        before = _listing(folder)
        code, usage, out, err = self._call(call, folder)
        seconds, megabytes = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000
        complaints = [
            *_wrong_end(call, code, out, err),
            *([f"{seconds:.1f} s of CPU"] if seconds > SECONDS else []),
            *([f"{megabytes:.0f} MB"] if megabytes > MEGABYTES else []),
            *(f"left {name!r} behind" for name in _left(before, _listing(folder), call)),
        ]
        what = f"azml-dist {_shown(call)}"
        return Result(number, maker, what, code, seconds, megabytes, out, err, complaints)

    def _call(self, call: Call, folder: Path) -> tuple[int, resource.struct_rusage, str, str]:
        files = {name: folder.parent / f"{folder.name}.{name}" for name in ("out", "err")}
        for file in files.values():
            file.touch()
        sys.stdout.flush()
        pid = os.fork()
        if not pid:
            _child(call, folder, files, str(self._folder))
        code, usage = _wait(pid)
        out, err = (file.read_bytes().decode("utf-8", "surrogateescape") for file in files.values())
        for file in files.values():
            file.unlink()
        return code, usage, out, err


def _wait(pid: int) -> tuple[int, resource.struct_rusage]:
    deadline = time.monotonic() + WALL
    while True:
        done, status, usage = os.wait4(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), usage
        if time.monotonic() > deadline:
            os.killpg(pid, signal.SIGKILL)
        time.sleep(0.002)


def _child(call: Call, folder: Path, files: dict[str, Path], mark: str) -> NoReturn:
    """What the entry point does, in a process whose world is that of the call."""
    code = 1
    try:
        _enter(call, folder, files, mark)
        try:
            from azml_dist.cli import main

            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            traceback.print_exc()
        atexit._run_exitfuncs()
        code = _flushed(code)
    finally:
        os._exit(code & 0xFF)


def _enter(call: Call, folder: Path, files: dict[str, Path], mark: str) -> None:
    os.setpgid(0, 0)
    atexit._clear()
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS * 3, SECONDS * 3))
    resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
    path, lang = os.environ["PATH"], "C.UTF-8"
    os.environ.clear()
    world: dict[str, str | None] = {
        "PATH": path,
        "LANG": lang,
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
    }
    for name, value in (world | {"AZML_DIST_ROOT": str(folder / "runs"), MARK: mark} | call.env).items():
        if value is not None:
            os.environ[name] = value
    if os.environ.pop("NO_PASSWD", None):
        os.setgroups([])
        pwd.getpwuid = _nobody
    os.chdir(folder / "work")
    if call.folder_is_gone:
        gone = folder / "gone"
        gone.mkdir()
        os.chdir(gone)
        gone.rmdir()
    _streams(call, files)
    import tempfile

    tempfile.tempdir = None
    sys.argv = ["azml-dist", *call.args]


def _nobody(_: int) -> Any:
    raise KeyError("getpwuid(): uid not found")


def _streams(call: Call, files: dict[str, Path]) -> None:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for fd, name, where in ((1, "out", call.stdout), (2, "err", call.stderr)):
        if where == "closed":
            os.close(fd)
            setattr(sys, f"std{name}", None)
            continue
        os.dup2(os.open(where or files[name], os.O_WRONLY), fd)
        encoding = os.environ.get("PYTHONIOENCODING", "utf-8")
        errors = "strict" if name == "out" else "backslashreplace"
        setattr(sys, f"std{name}", os.fdopen(fd, "w", encoding=encoding, errors=errors, closefd=False))


def _flushed(code: int) -> int:
    """As the interpreter ends: what cannot be written then is said, and the exit code is 120."""
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream:
                stream.flush()
    except (OSError, ValueError):
        os.write(2, b"Exception ignored while the output was flushed: Traceback")
        return 120
    return code


def _wrong_end(call: Call, code: int, out: str, err: str) -> list[str]:
    wrong = []
    command = call.args[0] if call.args else ""
    if code not in (0, 1, 2) or (code == 1 and command not in _MAY_FAIL):
        wrong.append(f"exit code {code}: {err[-300:]!r}")
    if "Traceback" in out + err:
        wrong.append(f"a traceback: {err[-1500:]}")
    if report := re.search(r"traceback is in (\S+)|traceback could be", err):
        wrong.append(f"not foreseen: {err.splitlines()[0][:300]}{_frames(report[1])}")
    refused = code == 2 or (code == 1 and command == "download")
    if refused and not call.stderr and not _says_why(err) and not (command == "plan" and _FINDING.search(out)):
        wrong.append(f"refused without an error and a hint: {err[-300:]!r}")
    if found := _CONTROL.search(out + err):
        wrong.append(f"control character {found[0]!r} in {(out + err)[max(0, found.start() - 40) :][:80]!r}")
    return wrong


def _says_why(err: str) -> bool:
    return bool(re.search(r"^error: \S", err, re.M) and re.search(r"^hint: \S", err, re.M))


def _frames(report: str | None) -> str:
    """Where in the package an error came through, from the file that holds its traceback."""
    if not report or not os.path.exists(report):
        return ""
    found = re.findall(r'File ".*?/(azml_dist/\S+)", line (\d+)', Path(report).read_text())
    return "".join(f"  {file}:{line}" for file, line in found[-4:])


def _left(before: set[str], after: set[str], call: Call) -> list[str]:
    new = sorted(after - before)
    return [name for name in new if not any(name == may or name.startswith(f"{may}/") for may in call.may_make)][:3]


def _listing(folder: Path) -> set[str]:
    found = set()
    for path, folders, names in os.walk(folder):
        found |= {os.path.relpath(os.path.join(path, name), folder) for name in (*folders, *names)}
    return {name for name in found if "PWNED" in name or name.count("/") < 4}


def _shown(call: Call) -> str:
    typed = " ".join(shlex.quote(arg if len(arg) < 90 else f"{arg[:40]}…({len(arg)})") for arg in call.args)
    parts = [f"{k}={v!r}" if v is not None else f"no {k}" for k, v in call.env.items()]
    parts += [f"stdout {call.stdout}"] * bool(call.stdout) + [f"stderr {call.stderr}"] * bool(call.stderr)
    parts += ["folder gone"] * call.folder_is_gone
    return ascii(typed)[1:-1] + (f"  ({', '.join(parts)})" if parts else "")


def _marked(mark: str) -> list[int]:
    needle = f"{MARK}={mark}".encode()
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in pids if needle in _environment_of(pid)]


def _environment_of(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []
