"""Writes the parts of the documents that repeat what the code says: `python docs/generate.py`, or `make docs`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import click

from azml_dist.cli import cli
from azml_dist.vmsizes import VmSize, vm_sizes

DOCS = Path(__file__).parent
_WIDTH = 100
_SIZES = re.compile(r"(?<=<!-- sizes: )(.*? -->\n).*?(?=<!-- end of sizes -->)", re.DOTALL)


def main() -> None:
    for page in PAGES:
        (DOCS / page).write_text(generated(page), encoding="utf-8")


def generated(page: str) -> str:
    """The text that a page of `docs/` should have."""
    return PAGES[page]()


def command_line() -> str:
    """Every command with its help, as it is printed."""
    return "\n".join(_command_line())


def _command_line() -> Iterator[str]:
    yield "# Command line\n"
    yield "What `azml-dist COMMAND --help` prints. `-h` is short for `--help`. Written by `docs/generate.py`.\n"
    yield _fence(_help(cli, "azml-dist"))
    for name, command in cli.commands.items():
        yield f"## azml-dist {name}\n"
        yield _fence(_help(command, f"azml-dist {name}"))


def _help(command: click.Command, name: str) -> str:
    context = click.Context(command, info_name=name, terminal_width=_WIDTH, max_content_width=_WIDTH)
    context.help_option_names = ["-h", "--help"]
    return command.get_help(context)


def _fence(text: str) -> str:
    return f"```text\n{text.rstrip()}\n```\n"


def sizes() -> str:
    """The guide to VM sizes with its table."""
    text = (DOCS / "vm-sizes.md").read_text(encoding="utf-8")
    return _SIZES.sub(lambda match: match[1] + _sizes_table(), text)


def _sizes_table() -> str:
    headings = ("size", "GPUs", "GB each", "joined by", "InfiniBand, Gbit/s", "GB of the VM", "")
    kept = [size for size in vm_sizes() if not size.retired]
    gone = [size for size in vm_sizes() if size.retired]
    lines = [_line(headings), _line(["---"] * len(headings)), *(_line(_row(size)) for size in kept)]
    days = sorted({size.retired for size in gone if size.retired}, reverse=True)
    names = [", ".join(f"`{size.name}`" for size in gone if size.retired == day) for day in days]
    retired = [_line((str(day), name)) for day, name in zip(days, names, strict=True)]
    retired = ["Azure has retired these:", "", "| on | sizes |", "|---|---|", *retired]
    return "\n".join(["", *lines, "", *retired, "", ""])


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _row(size: VmSize) -> Iterator[str]:
    yield f"`{size.name}`"
    yield f"{size.gpus} x {size.gpu.removeprefix('NVIDIA ')}"
    yield str(size.gpu_memory_gib)
    yield size.gpu_link or ("PCIe" if size.gpu_count > 1 else "")
    yield f"{size.infiniband_gbps:,}" if size.has_infiniband else "none"
    yield f"{size.memory_gib:,}" if size.memory_gib else ""
    yield "" if size.status == "current" else size.status


PAGES: dict[str, Callable[[], str]] = {"cli.md": command_line, "vm-sizes.md": sizes}

if __name__ == "__main__":
    main()
