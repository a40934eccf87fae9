"""Every block of the README and of the guides is executed, and shows what really comes out.

A section (`##`) is one session, as a reader would have it: a copy of the samples, and a folder of runs of its own.
Shell blocks go through bash, Python blocks are run, YAML blocks are written down, read and planned. What differs from
one run to the next (names, seconds, losses, folders) is brought to one form first; `...` stands for any lines.
"""

from __future__ import annotations

import contextlib
import html
import io
import os
import re
import signal
import subprocess
import sys
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Timer
from typing import Any, NamedTuple

import pytest
from emulated import SDK_WARNINGS
from needs import needs
from submitting import logged_in, repository_copy

from azml_dist.cli.argument import load_any

pytestmark = [pytest.mark.filterwarnings(one) for one in SDK_WARNINGS]

REPOSITORY = Path(__file__).parents[1]
NOT_TYPED = {
    "api.md",
    "bench.md",
    "cli.md",
    "emulator-contract.md",
    "emulator-routes.md",
    "findings.md",
    "index.md",
    "samples.md",
    "troubleshooting.md",
    "what-each-process-sees.md",
}
"""Pages without blocks that could be typed: they have none, or are generated."""
DOCUMENTS = (
    "README.md",
    *sorted(f"docs/{page.name}" for page in (REPOSITORY / "docs").glob("*.md") if page.name not in NOT_TYPED),
)

ON_AZURE = {"docs/models.md", "docs/checking.md", "docs/submitting.md", "docs/there-and-back.md"}
"""Documents whose blocks speak to Azure ML: the emulated one."""
RUNNING_THERE = {"docs/there-and-back.md"}
"""Documents whose submitted jobs run, in the emulated workspace."""

HERE, ROOT, WORKSPACE = "/home/you/azml-dist", "/home/you/.azml_dist/runs", "my-workspace"
"""What the documents show for the copy of the repository, for the folder of runs, and for the emulated workspace."""
RUN_NAME = re.compile(r"\b[a-z0-9][a-z0-9-]*-[0-9a-f]{6}(?:[0-9a-f]{4})?(?=\b|_)")
END, SECONDS = "-- end of output --", 180
VOLATILE = (
    (RUN_NAME, "NAME"),
    (re.compile(r"\b\d+\.\d s\b"), "SECONDS"),
    (re.compile(r"\b\d+ steps? lost\b"), "STEPS lost"),
    (re.compile(r"\b\d\.\d{4}\b"), "NUMBER"),
    (re.compile(r"\b[\d.]+ (kB|bytes)\b"), "SIZE"),
    (re.compile(r"[\d,]+ MB/s"), "SPEED"),
    (re.compile(r"[+-]?\d+\.\d\d ms\b"), "MILLISECONDS"),
    (re.compile(r"\b\d{4}-\d\d-\d\d \d\d:\d\d\b"), "DATE"),
    (re.compile(r"\b\d{4}-\d\d-\d\d\b"), "DAY"),
    (re.compile(r"\b127\.0\.0\.\d+:\d+\b"), "ADDRESS"),
    (re.compile(r"(/\S+)?/bash: line"), "bash: line"),
    (re.compile(r"  +"), "  "),  # columns are as wide as what stands in them
)
LABEL = re.compile(r"\[node\d+ rank\d+( ps)?\] ")
PIECE = re.compile(
    r"^## (?P<title>[^\n]+)$|^```(?P<language>\w*) ?(?P<file>\S*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


class Block(NamedTuple):
    """A fenced block; behind its language may stand the file that it is the text of."""

    language: str
    file: str
    text: str
    where: str


class Section(NamedTuple):
    document: str
    title: str
    blocks: list[Block]


def sections() -> Iterator[Section]:
    for document in DOCUMENTS:
        text = (REPOSITORY / document).read_text(encoding="utf-8")
        section = Section(document, "", [])
        for piece in PIECE.finditer(text):
            if piece["title"]:
                yield section
                section = Section(document, piece["title"], [])
            else:
                line = text.count("\n", 0, piece.start("text")) + 1
                section.blocks.append(Block(piece["language"], piece["file"], piece["text"], f"{document}:{line}"))
        yield section


@pytest.mark.parametrize("section", [pytest.param(s, id=f"{s.document}: {s.title}") for s in sections() if s.blocks])
def test_every_block_does_what_it_shows(
    section: Section, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if section.document in ON_AZURE:
        request.getfixturevalue("azure_sdk")
        for name, value in logged_in(request.getfixturevalue("emulator"), tmp_path / "bin").items():
            monkeypatch.setenv(name, value)
    if section.title.startswith("Probe") or section.document in RUNNING_THERE:
        monkeypatch.setenv("AZML_DIST_CACHE", str(tmp_path / "cache"))
        request.getfixturevalue("emulator").run_what_is_submitted()
    folder = repository_copy(tmp_path / "azml-dist")
    if section.document == "docs/emulator.md":
        (folder / "pyproject.toml").unlink()  # a project of the reader's own, without our settings for pytest
    monkeypatch.chdir(folder)
    monkeypatch.setenv("AZML_DIST_ROOT", str(tmp_path / "runs"))
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # the documents show runs on a CPU
    with shell() as bash:
        reader = Reader(folder, tmp_path / "runs", bash)
        for block in section.blocks:
            reader.follow(block)
        reader.expect_nothing_more()


@contextlib.contextmanager
def shell() -> Iterator[subprocess.Popen[str]]:
    options: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(["bash"], encoding="utf-8", start_new_session=True, **options) as bash:
        # With what it has started: that would hold its output open.
        too_long = Timer(SECONDS, os.killpg, (bash.pid, signal.SIGKILL))
        too_long.start()
        try:
            yield bash
        finally:
            too_long.cancel()
            bash.kill()


class Reader:
    """Somebody who types what a section shows, and looks at what comes out."""

    def __init__(self, folder: Path, root: Path, shell: subprocess.Popen[str]) -> None:
        self.folder, self.root, self.shell = folder, root, shell
        self.names: dict[str, str] = {}
        """The run that stands behind each name in the document."""
        self.variables: dict[str, Any] = {}
        self.printed = ""
        """What the Python block just before has printed, and no block has shown yet."""

    def follow(self, block: Block) -> None:
        if block.language == "text":
            return self.look(block)
        self.expect_nothing_more()
        return {
            "console": self.type,
            "python": self.write if block.file else self.run,
            "yaml": self.write,
        }[block.language](block)

    def expect_nothing_more(self) -> None:
        assert not self.printed, f"no block shows what a Python block prints:\n{self.printed}"

    def type(self, block: Block) -> None:
        """`$ command` lines, each followed by what it prints."""
        for typed in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
            command, *shown = typed.splitlines()
            self.compare(shown, self.bash(self.known(command)), block.where)

    def bash(self, command: str) -> str:
        """What a command prints, typed into the section's shell."""
        assert self.shell.stdin
        assert self.shell.stdout
        # In braces, what a command exports stays; `$?` is that of the command before.
        typed = f"{{ {instead_of_make(command)}\n}} </dev/null; code=$?; echo '{END}'; (exit $code)\n"
        self.shell.stdin.write(typed)
        self.shell.stdin.flush()
        printed = ""
        for line in self.shell.stdout:
            printed += line
            if line.endswith(f"{END}\n"):
                return printed.removesuffix(f"{END}\n")
        raise AssertionError(f"`{command}` ended its shell, or took more than {SECONDS} s:\n{printed}")

    def run(self, block: Block) -> None:
        """A cell of a notebook: what it defines is there for the next one."""
        line = int(block.where.rpartition(":")[2])
        code = compile("\n" * (line - 1) + self.known(block.text), block.where.rpartition(":")[0], "exec")
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, self.variables)
        self.printed = printed.getvalue()

    def look(self, block: Block) -> None:
        self.compare(block.text.splitlines(), self.printed, block.where)
        self.printed = ""

    def write(self, block: Block) -> None:
        assert block.file, f"{block.where}: a file needs a name, behind the language"
        file = self.folder / block.file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block.text, encoding="utf-8")
        if block.language == "yaml":
            assert str(load_any(file).plan())

    def known(self, text: str) -> str:
        """The document's names of runs, replaced by those of the runs that were made."""
        return RUN_NAME.sub(lambda name: self.names.get(name[0], name[0]), text)

    def compare(self, shown: Sequence[str], printed: str, where: str) -> None:
        for real, ours in ((str(self.root), ROOT), (str(self.folder), HERE), ("emulated-workspace", WORKSPACE)):
            printed = printed.replace(real, ours)
        lines = printed.splitlines()
        assert same(shown, lines), f"{where}: shown\n\n" + "\n".join(shown) + "\n\nbut there came\n\n" + printed
        for name, real in zip(dict.fromkeys(names_in(shown)), dict.fromkeys(names_in(lines)), strict=False):
            self.names.setdefault(name, real)


def instead_of_make(command: str) -> str:
    """The last steps of a target, without the set-up, which whoever runs this test has behind them."""
    if command == "make demo":
        return "make -n demo | sed -n '/azml-dist run/,$p' | bash"
    if command == "make test":
        return "make -n test > steps && grep -q pytest steps"  # this very test is one of those that it runs
    assert not command.startswith("make "), command
    return command


def same(shown: Sequence[str], printed: Sequence[str]) -> bool:
    """Whether lines are as shown: those of each rank in their order, as ranks do not wait for one another."""
    wanted, found = by_label(without_use(shown)), by_label(without_use(printed))
    anything = "..." in shown
    if not anything and wanted.keys() != found.keys():
        return False
    return all(re.fullmatch(pattern(lines), text(found[label])) for label, lines in wanted.items())


def without_use(lines: Sequence[str]) -> list[str]:
    """The lines without what processes used, which a short run does not know, and without notes of a slow start.

    Nor is there a note of a port that another test's run has.
    """
    lines = [
        line for line in lines if not re.fullmatch(r"note: (.*, \d+ s so far|port \d+, which .* is in use: .*)", line)
    ]
    used = [number for number, line in enumerate(lines) if re.match(r"used +cpu ", line)]
    return [line for number, line in enumerate(lines) if number not in used and number + 1 not in used]


def by_label(lines: Sequence[str]) -> defaultdict[str, list[str]]:
    labels = {match[0] for line in lines if (match := LABEL.match(line))} | {""}
    streams: defaultdict[str, list[str]] = defaultdict(list)
    for line in lines:
        for label in labels if line == "..." else [match[0] if (match := LABEL.match(line)) else ""]:
            streams[label].append(line)
    streams[""] += []
    return streams


def pattern(lines: Sequence[str]) -> str:
    return "".join(r"(?:.*\n)*" if line == "..." else re.escape(text([line])) for line in lines)


def text(lines: Sequence[str]) -> str:
    joined = "".join(f"{line.rstrip()}\n" for line in lines)
    for volatile, word in VOLATILE:
        joined = volatile.sub(word, joined)
    return joined


def names_in(lines: Sequence[str]) -> list[str]:
    return [name for line in lines for name in RUN_NAME.findall(line)]


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        (["a", "b"], ["a", "c"]),
        (["a"], ["a", "b"]),
        (["a", "b"], ["b", "a"]),
        (["a", "...", "d"], ["a", "b", "c"]),
        (["[node0 rank0] a"], ["[node0 rank1] a"]),
        (["[node0 rank0] a", "[node0 rank0] b"], ["[node0 rank0] b", "[node0 rank0] a"]),
        (["[node0 rank0] a"], ["[node0 rank0] a", "[node0 rank1] a"]),
        (["run x-123abc: Completed in 1.0 s"], ["run x-123abc: Failed in 1.0 s"]),
    ],
)
def test_other_lines_than_those_shown_are_noticed(shown: list[str], printed: list[str]) -> None:
    assert not same(shown, printed)


def test_what_differs_between_runs_is_not_compared() -> None:
    shown = ["run x-123abc: Completed in 1.0 s", "...", "[node0 rank0] loss 0.1234", "[node0 rank1] b"]
    printed = ["run x-456def: Completed in 22.5 s", "more", "[node0 rank1] b", "[node0 rank0] loss 0.9876"]

    assert same(shown, printed)


@pytest.mark.parametrize("target", ["demo", "test", "check", "docs", "bench"])
def test_what_the_readme_calls_is_in_the_makefile(target: str) -> None:
    """On a fresh machine: the set-up is part of the target."""
    ended = subprocess.run(
        ["make", "-n", "VENV=not-there-yet", target], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )

    assert ended.returncode == 0, ended.stderr
    assert "venv not-there-yet" in ended.stdout


@needs("readme_renderer")
def test_a_package_index_shows_the_readme_and_nothing_in_it_leads_nowhere(tmp_path: Path) -> None:
    """Relative links and pictures mean something in the repository only."""
    from readme_renderer import markdown

    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=REPOSITORY, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        [name] = [name for name in wheel.namelist() if re.fullmatch(r"azml_dist-[^/]+/METADATA", name)]
        fields, _, readme = wheel.read(name).decode().partition("\n\n")

    assert "Description-Content-Type: text/markdown" in fields
    page = markdown.render(readme)  # as PyPI does
    targets = re.findall(r'(?:href|src)="([^"]*)"', page)
    assert not [target for target in targets if not target.startswith(("https:", "#"))]
    # What the links said is still there, and nothing of how they were written.
    text = html.unescape(re.sub(r"<[^>]+>", "", page))
    assert "samples/quickstart/job.yml is an ordinary command job" in text
    assert "](" not in text
    assert page.count("<h2") == len(re.findall("^## ", (REPOSITORY / "README.md").read_text(), re.MULTILINE))
    assert page.count("<table") == len(re.findall(r"^\|[-|]+\|$", (REPOSITORY / "README.md").read_text(), re.MULTILINE))
