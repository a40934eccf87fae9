"""Records a terminal as a picture that moves: `python docs/record.py` writes `docs/terminal.svg`.

The commands run for real, in a pseudo-terminal, with their own colours. What they print is shown when they printed it;
waits of more than a second are shortened to one. Paths of the machine that recorded it become those of anybody.
"""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import tempfile
import time
from html import escape
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).parent
COLUMNS, ROWS = 100, 24
_WAIT = 1.0
"""The longest pause that is shown, in seconds."""
_TYPING, _READING, _AT_THE_END = 0.03, 1.6, 6.0
"""Seconds for a letter of a command, after the end of a command, and at the end of all."""
_LINE, _LETTER, _TOP, _LEFT = 19, 9.03, 58, 26
_COLOUR = re.compile(r"\x1b\[([0-9;]*)m")
_NAME = re.compile(r"run (\S+-[0-9a-f]{6}):")
_OTHER = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|\r")
_CLASSES = {"1": "b", "2": "d", "31": "r", "32": "g", "33": "y", "34": "u", "35": "m", "36": "c", "91": "r", "92": "g"}

JOB = """\
display_name: digits
command: python train.py --epochs ${{inputs.epochs}}
code: .
inputs: {epochs: 3}
environment: azureml:torch:1
resources: {instance_count: 2}
distribution: {type: pytorch, process_count_per_instance: 2}
"""
TRAIN = """\
import argparse, os, time

arguments = argparse.ArgumentParser()
arguments.add_argument("--epochs", type=int)
epochs = arguments.parse_args().epochs
rank, world = os.environ["RANK"], os.environ["WORLD_SIZE"]
print(f"rank {rank} of {world} starts", flush=True)
for epoch in range(1, epochs + 1):
    time.sleep(0.15)
    if rank == "0":
        print(f"epoch {epoch}: loss {2.3 / epoch:.4f}", flush=True)
    time.sleep(0.15)
    if epoch == 4 and rank == "2":
        batch = {"images": 1}
        print(batch["labels"])
"""
COMMANDS = (
    "azml-dist run job.yml",
    "azml-dist run job.yml --set inputs.epochs=5",
    "azml-dist list",
    "azml-dist page NAME",
)
"""`NAME` is that of the last run."""


class Line(NamedTuple):
    """A line, when it appears, and its text with colours."""

    at: float
    text: str


def main() -> None:
    (DOCS / "terminal.svg").write_text(drawn(record()), encoding="utf-8")


def record() -> list[Line]:
    """What the commands print."""
    with tempfile.TemporaryDirectory() as folder:
        code = Path(folder, "digits")
        code.mkdir()
        (code / "job.yml").write_text(JOB)
        (code / "train.py").write_text(TRAIN)
        return _recorded(folder)


def _recorded(folder: str) -> list[Line]:
    lines, at, name = [], 0.5, ""
    for command in COMMANDS:
        command = command.replace("NAME", name)
        lines.append(Line(at, f"\x1b[32m$\x1b[0m \x1b[1m{command}\x1b[0m"))
        at += len(command) * _TYPING
        for pause, text in _run(command, folder):
            at += min(pause, _WAIT)
            lines.append(Line(at, text.replace(f"{folder}/digits", "/home/you/digits").replace(folder, "/home/you")))
            name = found[1] if (found := _NAME.search(text)) else name
        at += _READING
    lines.append(Line(at + _AT_THE_END, ""))
    return lines


def _run(command: str, folder: str) -> list[tuple[float, str]]:
    """Each line of a command, with the seconds since the one before."""
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "azml_dist.cli", *command.split()[1:]]
    words += ["--launcher", "direct", "--plain"] if words[3] == "run" else []
    own = {name: value for name, value in os.environ.items() if not name.startswith("AZML_DIST_")}
    environment = own | {"COLUMNS": str(COLUMNS), "TERM": "xterm", "HOME": folder}
    process = subprocess.Popen(
        words,
        cwd=Path(folder, "digits"),
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        close_fds=True,
    )
    os.close(theirs)
    found, rest, last = [], b"", time.monotonic()
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:  # Linux says so when the other end is closed
            break
        if not data:
            break
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            now = time.monotonic()
            found.append((now - last, line.decode(errors="replace")))
            last = now
    os.close(ours)
    process.wait()
    return found


def drawn(lines: list[Line]) -> str:
    """The recording as an SVG: every line appears at its time, and the oldest scroll away."""
    length = lines[-1].at
    shown = lines[:-1]
    width, height = COLUMNS * _LETTER + 2 * _LEFT, _TOP + ROWS * _LINE + 20
    scrolls = "".join(
        f"{_per_cent(line.at, length)}%{{transform:translateY({-(number - ROWS + 1) * _LINE}px)}}"
        for number, line in enumerate(shown)
        if number >= ROWS
    )
    begin = f"0%,{_per_cent(shown[ROWS - 1].at, length)}%{{transform:translateY(0)}}" if len(shown) > ROWS else ""
    body = "\n".join(_line(number, line, length) for number, line in enumerate(shown))
    frames = "\n".join(
        f"@keyframes l{number}{{0%,{_per_cent(line.at, length)}%{{opacity:0}}{_per_cent(line.at + 0.001, length)}%,100%"
        f"{{opacity:1}}}}"
        for number, line in enumerate(shown)
    )
    end = -max(0, len(shown) - ROWS) * _LINE
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" height="{height}" role="img" aria-labelledby="t d">
<title id="t">A recorded terminal: a job runs, then fails, and the verdict names the rank and the line</title>
<desc id="d">Four commands: azml-dist run job.yml completes with 2 nodes x 2 processes; with more epochs, rank 2 fails with a KeyError, and its line is named; azml-dist list shows both runs, and azml-dist page writes a page of the last one.</desc>
<style>
text{{font:15px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;fill:#d7dde5;white-space:pre}}
.b{{font-weight:700}}.d{{fill:#8b96a3}}.r{{fill:#ff7b72}}.g{{fill:#57c274}}.y{{fill:#e5b567}}.u{{fill:#6cb0ff}}.m{{fill:#d2a8ff}}.c{{fill:#5fc9dd}}
#all{{transform:translateY({end}px)}}
@media (prefers-reduced-motion:no-preference){{
#all{{animation:scroll {length:.1f}s steps(1,end) infinite}}
.l{{animation-duration:{length:.1f}s;animation-iteration-count:infinite;animation-timing-function:steps(1,end)}}
@keyframes scroll{{{begin}{scrolls}100%{{transform:translateY({end}px)}}}}
{frames}
}}
</style>
<rect width="{max(width, 951):.0f}" height="{height}" rx="12" fill="#12171e" />
<circle cx="28" cy="24" r="6" fill="#ff5f57" /><circle cx="48" cy="24" r="6" fill="#febc2e" /><circle cx="68" cy="24" r="6" fill="#28c840" />
<clipPath id="screen"><rect x="0" y="{_TOP - 16}" width="{width:.0f}" height="{ROWS * _LINE + 6}" /></clipPath>
<g clip-path="url(#screen)"><g id="all">
{body}
</g></g>
</svg>
"""  # noqa: E501 (one element, one line)


def _per_cent(at: float, length: float) -> str:
    return f"{100 * at / length:.3f}"


def _line(number: int, line: Line, length: float) -> str:
    style = f' style="animation-name:l{number}"'
    return f'<text class="l" x="{_LEFT}" y="{_TOP + number * _LINE}"{style}>{_spans(line.text)}</text>'


def _spans(text: str) -> str:
    """The text in its colours, cut where the terminal ends."""
    found, classes, room = [], set[str](), COLUMNS
    parts = _COLOUR.split(text)
    for place, part in enumerate(parts):
        if place % 2:
            codes = part.split(";")
            classes = (
                set() if codes in ([""], ["0"]) else classes | {_CLASSES[code] for code in codes if code in _CLASSES}
            )
            continue
        words = _OTHER.sub("", part)[:room]
        room -= len(words)
        if words:
            kind = " ".join(sorted(classes))
            found.append(f'<tspan class="{kind}">{escape(words)}</tspan>' if kind else escape(words))
    return "".join(found)


if __name__ == "__main__":
    main()
