"""Whether the tests would notice a mistake: mutmut makes small ones in the pure parts, and the quick tests are run.

`python tests/mutants.py 30 1` tries 30 mutants of each part, drawn with seed 1; `all` in place of 30 tries every one.
Mutants that only change the text of a message are left out: what a message says is for people to judge. mutmut itself
mutates functions, and neither docstrings, tables nor functions with decorators.

What survives is a missing test, or changes nothing that can be seen; those are explained in tests/mutants.md.
"""

from __future__ import annotations

import filecmp
import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
from collections import defaultdict
from itertools import islice
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).parents[1]
COPY = REPOSITORY / "build" / "mutants"
EXPLAINED = Path(__file__).parent / "mutants.md"
ENOUGH = 0.85
_AT_LEAST, _TIMES = 120, 16
"""Seconds of a processor that a mutant's tests may take, twice those of the clock: a busy machine kills no mutant."""
_MEMORY = 8 << 30
"""Bytes that a mutant may take which never ends, and makes a list meanwhile."""
_LITERAL = re.compile(r"""("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')""")
_ROW = re.compile(r"^\| `(?P<function>[^`]+)` \| `(?P<old>.*?)` \| `(?P<new>.*?)` \| [^|]+ \|$", re.MULTILINE)


class Change(NamedTuple):
    """A mutant, as it is known whatever its number is."""

    function: str
    old: str
    new: str

    @property
    def part(self) -> str:
        return self.function.split(".")[1]

    @property
    def is_text(self) -> bool:
        """Whether it only changes the text of a message: a literal of several words."""
        old, new = _LITERAL.split(self.old), _LITERAL.split(self.new)
        differing = [one for one, other in zip(old, new, strict=False) if one != other]
        return (
            len(old) == len(new) and len(differing) == 1 and bool(re.match(r"""["'].*\w[\w,:;.)`]* \S""", differing[0]))
        )


def main(size: str, seed: str) -> int:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    _copy()
    os.chdir(COPY)
    sys.path.insert(0, str(COPY))
    chosen = _chosen(_made(), None if size == "all" else int(size), random.Random(int(seed)))
    print(f"{len(chosen)} mutants are tried")
    return _report({chosen[name]: status for name, status in _tried([*chosen]).items()})


def _copy() -> None:
    """The files that git knows or would take, in a folder of their own, where mutants of what is unchanged are kept."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
    )
    names = [name for name in filter(None, listed.stdout.decode().split("\0")) if (REPOSITORY / name).is_file()]
    list_of_files = COPY / "files.json"
    if not list_of_files.exists() or not {*json.loads(list_of_files.read_text())} <= {*names}:
        shutil.rmtree(COPY, ignore_errors=True)
    for name in names:
        if not (COPY / name).exists() or not filecmp.cmp(REPOSITORY / name, COPY / name, shallow=False):
            (COPY / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, COPY / name)  # changed now, whenever that was: later than its mutants
    list_of_files.write_text(json.dumps(names))
    (COPY / "mutants" / "mutmut-stats.json").unlink(missing_ok=True)  # which tests call what


def _made() -> dict[str, Path]:
    """Every mutant by mutmut's name for it, with its file. mutmut has no command that makes them and tries none."""
    from mutmut import __main__ as mutmut

    Path("mutants").mkdir(exist_ok=True)
    with mutmut.CatchOutput(spinner_title="Making mutants"):
        mutmut.copy_src_dir()
        mutmut.copy_also_copy_files()
        mutmut.create_mutants(1)
    mutants, _ = mutmut.collect_source_file_mutation_data(mutant_names=())
    return {name: data.path for data, name, _ in mutants}


def _chosen(made: dict[str, Path], size: int | None, chance: random.Random) -> dict[str, Change]:
    """So many of each part, or all; none that only changes a text."""
    from mutmut.mutation.diff_apply import get_diff_for_mutant

    parts = defaultdict(list)
    for name in sorted(made):
        parts[name.split(".")[1]].append(name)
    chosen: dict[str, Change] = {}
    for _, names in sorted(parts.items()):
        changes = (
            (name, _change(name, get_diff_for_mutant(name, path=made[name])))
            for name in chance.sample(names, len(names))
        )
        chosen.update(islice((pair for pair in changes if not pair[1].is_text), size))
    return chosen


def _change(name: str, diff: str) -> Change:
    lines = [line for line in diff.splitlines() if not line.startswith(("---", "+++"))]
    old, new = (" ".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+")
    module, _, mangled = name.rpartition(".")
    function = re.sub(r"__mutmut_\d+$", "", mangled).removeprefix("x_").removeprefix("xǁ").replace("ǁ", ".")
    return Change(f"{module}.{function}", old, new)


def _tried(names: list[str]) -> dict[str, str]:
    """What became of each mutant: `killed`, `timeout`, `survived`, `no tests` …"""
    from mutmut import __main__ as mutmut

    mutmut.setup_source_paths()
    runner = mutmut.get_mutant_runner(os.cpu_count() or 1)
    mutmut.collect_or_load_stats(runner)  # runs the tests, and ends if one of them fails
    seconds = mutmut.state().duration_by_test
    tests_of = mutmut.state().tests_by_mangled_function_name
    called_at_import = _called_at_import()
    tried: dict[str, str] = {}

    def take(count: int) -> None:
        while runner.pending_count() > count:
            result = runner.wait_for_result()
            tried[result.mutant_name] = mutmut.status_by_exit_code[result.exit_code]
            print(f"{len(tried)} of {len(names)}: {tried[result.mutant_name]} {result.mutant_name}", flush=True)

    runner.startup()
    for name in names:
        tests = sorted(tests_of[mutmut.mangled_name_from_mutant_name(name)], key=lambda test: seconds[test])
        needed = sum(seconds[test] for test in tests)
        runner.submit(name, tests, int(_AT_LEAST + _TIMES * needed), needed)
        take(runner.max_workers - 1)
    take(0)
    runner.shutdown()
    for name in [one for one, status in tried.items() if status in ("survived", "no tests")]:
        if mutmut.mangled_name_from_mutant_name(name) in called_at_import and _fails(name) and not _fails(""):
            tried[name] = "killed"
    return tried


def _called_at_import() -> set[str]:
    """Functions that are called while modules are imported, which is before a mutant is switched on."""
    from mutmut.utils.file_utils import walk_mutatable_files

    modules = [".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in walk_mutatable_files()]
    script = "import sys; from mutmut.state import state; [*map(__import__, sys.argv[1:])]; print(*state()._stats)"
    imported = _from_the_start("stats", "-c", script, *modules)
    imported.check_returncode()
    return set(imported.stdout.split())


def _fails(name: str) -> bool:
    """Whether any quick test fails where the mutant is on from the start."""
    from mutmut.configuration import config

    selection = config().pytest_add_cli_args_test_selection
    return _from_the_start(name, "-m", "pytest", "-x", "-q", *config().pytest_add_cli_args, *selection).returncode != 0


def _from_the_start(name: str, *python: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "MUTANT_UNDER_TEST": name}
    return subprocess.run(
        [sys.executable, *python],
        cwd="mutants",
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,  # a signal to the group of a test is none to this process
    )


def _report(tried: dict[Change, str]) -> int:
    explained = {Change(*row) for row in _ROW.findall(EXPLAINED.read_text(encoding="utf-8"))}
    counted = {change: status for change, status in tried.items() if change not in explained}
    killed = {change for change, status in counted.items() if status in ("killed", "timeout")}
    for change in sorted(counted.keys() - killed):
        print(f"{counted[change]}: | `{change.function}` | `{change.old}` | `{change.new}` |")
    for part in sorted({change.part for change in tried}):
        of_part = [change for change in counted if change.part == part]
        print(f"{part:10} {sum(change in killed for change in of_part)} of {len(of_part)} killed")
    share = len(killed) / max(len(counted), 1)
    late = sum(status == "timeout" for status in counted.values())
    print(f"all        {len(killed)} of {len(counted)} killed: {share:.0%}, {late} of them by never ending")
    print(f"{len(tried) - len(counted)} more are explained in {EXPLAINED.name}")
    return int(share < ENOUGH)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
