"""Progress bars in several lines: what they say last is printed, as of a bar in one line, and no text is lost."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, TextIO

import pytest
from needs import needs
from rich.console import Console
from rich.progress import Progress
from running import call

from azml_dist import Job
from azml_dist.runs.folding import Folding
from azml_dist.runs.logs import Labeller, Piece, Source

UP = b"\x1b[A"
NESTED = (
    b"begun\n\repochs 0/2\n\rsteps 0/2" + UP + b"\n\rsteps 1/2" + UP + b"\n\r         " + UP + b"\repochs 1/2"
    b"\n\rsteps 0/2" + UP + b"\n\rsteps 1/2" + UP + b"\n\r         " + UP + b"\repochs 2/2\rdone 2/2\nended\n"
)
"""What tqdm writes of two bars, the inner of which leaves nothing."""


def printed(*pieces: bytes) -> str:
    """What is printed of these pieces of a rank's log, without labels."""
    labeller = Labeller.of_none([Source(0, 0)])
    return (b"".join(labeller.label(Piece(0, piece)) for piece in pieces) + labeller.end()).decode()


def written_by(show: Callable[[TextIO], Any]) -> bytes:
    """What a library writes into the pipe of a rank."""
    pipe = io.BytesIO()
    with io.TextIOWrapper(pipe, encoding="utf-8", newline="", write_through=True) as file:
        show(file)
        return pipe.getvalue()


def test_nested_bars_leave_what_they_say_last() -> None:
    """The first state of the outer one is printed before anything says that there is an inner one."""
    assert printed(NESTED) == "begun\nepochs 0/2\ndone 2/2\nended\n"


def test_it_does_not_depend_on_where_the_pieces_were_cut() -> None:
    for first in range(1, len(NESTED)):
        for second in range(first + 1, len(NESTED), 7):
            pieces = NESTED[:first], NESTED[first:second], NESTED[second:]
            assert printed(*pieces) == "begun\nepochs 0/2\ndone 2/2\nended\n"


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (b"\ra 1\n\rb 1" + UP + b"\n\rb 2" + UP, "a 1\nb 2\n"),  # killed
        (b"\ra 1\n\rb 1" + UP + b"\ra 2 said\nnext\n", "a 1\na 2 said\nnext\n"),
        (b"\ra 1\n\rb 1" + UP + b"Traceback\n  File\n", "a 1\nb 1\nTraceback\n  File\n"),
        (b"\ra 1\n\n\rc 1" + UP * 2 + b"\n\rb 1" + UP + b"\n\n\rc 2" + UP * 2 + b"\n", "a 1\n\nb 1\nc 2\n"),
        (b"a 1\nb 1\r\x1b[2K\x1b[1A\x1b[2Ka 2\nb 2\nend\n", "a 1\na 2\nb 2\nend\n"),
        (b"a 1\nb 1\n\x1b[2Fa 2\nb 2\nend\n", "a 1\nb 1\na 2\nb 2\nend\n"),
        (b"\rx\n\ry" + UP + b"\n\r   \x1b[999A\rz\nend\n", "x\nz\nend\n"),
        (b"\ra\n\rb\x1b[K" + UP + b"\r\x1b[?25hc\x1b[K\n\rb 2\x1b[K\nend\x1b[K\n", "a\n\x1b[?25hc\nb 2\nend\x1b[K\n"),
        (b"\ra\n\rb" + UP + b"\x1b[?25h\n\rb 2\r\n\r\nend\r\n", "a\nb 2\n\nend\r\n"),
        (b"\x1b[A\n\nend\n", "end\n"),
    ],
)
def test_what_a_terminal_would_show_is_printed(written: bytes, shown: str) -> None:
    assert printed(written) == shown


def test_text_is_printed_at_once_and_a_bar_when_it_changes_no_more() -> None:
    labeller = Labeller.of_none([Source(0, 0)])
    seen = [labeller.label(Piece(0, line + b"\n")) for line in NESTED.split(b"\n")[:-1]]

    assert (seen[0], seen[1], seen[-1]) == (b"begun\n", b"epochs 0/2\n", b"done 2/2\nended\n")
    assert not any(seen[2:-1])


def test_ranks_do_not_disturb_the_bars_of_each_other() -> None:
    sources = [Source(0, 0), Source(1, 0)]
    pieces = [Piece(rank, line + b"\n") for line in NESTED.split(b"\n")[:-1] for rank in (0, 1)]
    labeller = Labeller(sources)

    text = (b"".join(map(labeller.label, pieces)) + labeller.end()).decode()

    for source in sources:
        own = [line.removeprefix(f"{source.label} ") for line in text.splitlines() if line.startswith(source.label)]
        assert own == ["begun", "epochs 0/2", "done 2/2", "ended"]


def test_equal_bars_of_many_ranks_are_one() -> None:
    folding = Folding([Source(rank, 0) for rank in range(20)], 20)
    pieces = [Piece(rank, line + b"\n") for line in NESTED.split(b"\n")[:-2] for rank in range(20)]

    text = (b"".join(map(folding.label, pieces)) + folding.end()).decode()

    assert text == "[ranks 0-19] begun\n[ranks 0-19] epochs 0/2\n[ranks 0-19] done 2/2\n"


def test_no_line_of_text_is_lost_among_bars() -> None:
    random = Random(5)
    bars = [b"\r", b"\n", UP, b"\x1b[3A", b"\x1b[2F", b"\x1b[2K", b"\x1b[K", b"10%", b"    ", b"\x1b[?25l", b"\x1b[31m"]
    for _ in range(500):
        parts, said = list[bytes](), list[str]()
        for number in range(random.randrange(1, 8)):
            parts += [*random.choices(bars, k=random.randrange(12)), b"\n", b"text %d\n" % number]
            said.append(f"text {number}")
        text = printed(*parts)

        assert [line for line in text.splitlines() if line.startswith("text")] == said, parts


@needs("tqdm")
@pytest.mark.parametrize("leave", [True, False])
def test_the_nested_bars_of_tqdm(leave: bool) -> None:
    from tqdm import tqdm

    def show(file: TextIO) -> None:
        for epoch in tqdm(range(3), file=file, mininterval=0, desc="epochs"):
            for _ in tqdm(range(5), file=file, mininterval=0, desc="steps", leave=leave):
                pass
            tqdm.write(f"loss {epoch}", file=file)

    shown = [re.sub(r"\|.*\| (\d/\d) .*", r" \1", line) for line in printed(written_by(show)).splitlines()]

    steps = ["steps: 100% 5/5"] if leave else []
    assert shown == ["epochs:   0% 0/3", *(one for n in range(3) for one in (*steps, f"loss {n}")), "epochs: 100% 3/3"]


def test_the_bars_of_rich() -> None:
    def show(file: TextIO) -> None:
        with Progress(console=Console(file=file, force_terminal=True, width=80), auto_refresh=False) as progress:
            tasks = [progress.add_task(name, total=4) for name in ("epochs", "steps")]
            for task in tasks * 4:
                progress.update(task, advance=1, refresh=True)

    shown = re.findall(r"(epochs|steps).* (\d+%)", re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", printed(written_by(show))))

    assert shown == [("epochs", "0%"), ("epochs", "100%"), ("steps", "100%")]


@needs("tqdm")
def test_a_pipe_gets_few_lines_of_nested_bars_and_the_log_has_every_byte(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/bars.py").write_text(
        "from tqdm import trange\n"
        "for epoch in trange(3, desc='epochs', mininterval=0):\n"
        "    for step in trange(20, desc='steps', leave=False, mininterval=0):\n"
        "        pass\n"
        "print('done')\n"
    )
    Job(command="python bars.py 2>&1", code=str(tmp_path / "src")).dump(tmp_path / "job.yml")

    run = call("run", tmp_path / "job.yml", "--root", tmp_path / "runs", "--set", "name=bars")
    again = call("logs", "bars", "--root", tmp_path / "runs")

    for text in (run.stdout, again.stdout):
        lines = [line for line in text.splitlines() if "epochs" in line or "steps" in line or "done" in line]
        assert [re.sub(r"\|.*", "", line) for line in lines] == [
            "[node0 rank0] epochs:   0%",
            "[node0 rank0] epochs: 100%",
            "[node0 rank0] done",
        ]
    log = (tmp_path / "runs/bars/user_logs/std_log.txt").read_bytes()
    assert log.count(UP) > 60
