"""Tables and lists in the documents that repeat what the code says: they say the same."""

from __future__ import annotations

import ast
import importlib.util
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import pytest

import azml_dist
from azml_dist import Job
from azml_dist.cli import base as cli
from azml_dist.plan.world import Service

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "azml_dist"
DOCUMENTS = sorted(
    file.relative_to(REPOSITORY).as_posix()
    for pattern in ("*.md", "docs/*.md", "samples/README.md", "samples/*/README.md", "environments/*/README.md")
    for file in REPOSITORY.glob(pattern)
)


def the_generator() -> Any:
    """`docs/generate.py`, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("generate", REPOSITORY / "docs" / "generate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate = the_generator()


def text_of(document: str) -> str:
    return (REPOSITORY / document).read_text(encoding="utf-8")


def rows(document: str, heading: str) -> Iterator[list[str]]:
    """The cells of each row of the tables with that heading, backticks and all."""
    _, *tables = text_of(document).split(f"| {heading} |")
    for table in tables:
        for line in table.partition("\n\n")[0].splitlines()[2:]:
            yield [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_of_variables_is_what_the_plan_gives(tmp_path: Path) -> None:
    """Rank 3 of the README's own job, and the same job as a single process."""
    yaml = re.search(r"^```yaml job.yml\n(.*?)^```$", text_of("README.md"), re.MULTILINE | re.DOTALL)
    assert yaml
    (tmp_path / "job.yml").write_text(yaml[1].replace("code: ", f"code: {REPOSITORY}/"))
    job = Job.load(tmp_path / "job.yml")

    world = job.plan().processes[3].env
    alone = job.with_(node_count=1, distribution=None).plan().processes[0].env
    told = {name.strip("`"): (there.strip("`"), single.strip("`")) for name, there, single, _ in variables()}

    assert told == {name: (world.get(name, ""), alone.get(name, "")) for name in told}
    of_the_platform = re.compile("AZ_BATCH(AI)?_.*|AZUREML_(CR|ARM)_.*")
    assert not [name for name in {**world, **alone} if name not in told and not of_the_platform.fullmatch(name)]


def variables() -> Iterator[list[str]]:
    yield from rows("README.md", "variable")


def test_every_command_is_in_the_readme() -> None:
    told = [command.strip("`").split()[1] for command, _ in rows("README.md", "command")]

    assert sorted(told) == sorted(cli.cli.list_commands(click.Context(cli.cli)))


def test_every_exit_code_is_in_the_readme() -> None:
    told = [int(code) for code, _ in rows("README.md", "exit code")]

    assert told == [cli.DONE, cli.FAILED, cli.WRONG, cli.INTERRUPTED]


def test_every_assumption_about_azure_ml_is_in_the_guide_with_its_value() -> None:
    told = {field.strip("`"): value for field, _, value, *_ in rows("docs/local-runs.md", "field of `Service`")}
    service = Service()
    in_code = {field.name: getattr(service, field.name) for field in fields(Service)}

    assert told.keys() == in_code.keys()
    for name, value in in_code.items():
        assert callable(value) or told[name] == f"`{value}`", name


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    folder = (REPOSITORY / document).parent
    links = re.findall(r"\]\(([^)#]+)(?:#([^)]+))?\)", text_of(document))

    broken = [link for link, _ in links if "://" not in link and not (folder / link).exists()]
    assert not broken
    for link, anchor in links:
        if anchor:
            headings = re.findall(r"^#+ (.+)$", (folder / link).read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings], link


def test_every_module_is_explained() -> None:
    told = [row[0].strip("`") for row in rows("docs/how-it-works.md", "module")]
    files = [file.relative_to(PACKAGE).as_posix() for file in PACKAGE.rglob("*.py") if file.stat().st_size > 200]

    assert sorted(told) == sorted(files)


@pytest.mark.parametrize("picture", sorted((REPOSITORY / "docs").glob("*.svg")), ids=lambda path: path.name)
def test_a_picture_stands_alone_and_on_its_own_ground(picture: Path) -> None:
    """GitHub shows it as an image: nothing outside it is loaded, and the page behind it may be light or dark."""
    drawing = ET.parse(picture).getroot()
    ground = next(e for e in drawing if e.tag.endswith("rect"))

    assert "href" not in ET.tostring(drawing, encoding="unicode")
    assert float(ground.get("width", 0)) > 950
    assert ground.get("fill") not in (None, "none")
    assert {e.tag.rpartition("}")[2] for e in drawing} >= {"title", "desc"}, "a screen reader has nothing to read"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_web_addresses_are_well_formed(document: str) -> None:
    """Whether somebody answers there is not asked: tests are offline."""
    for address in re.findall(r"\]\((\w+://[^)]*)\)", text_of(document)):
        parts = urlsplit(address)

        assert parts.scheme == "https", address
        assert re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", parts.netloc), address
        assert not re.search(r"\s|[.,;]$", address), address


@pytest.mark.parametrize("page", sorted(generate.PAGES))
def test_what_is_generated_is_what_the_code_gives(page: str) -> None:
    assert text_of(f"docs/{page}") == generate.generated(page), "python docs/generate.py writes it"


def test_every_public_name_is_in_the_reference() -> None:
    told = re.findall(r"^\.\. auto\w+:: azml_dist\.(\w+)$", text_of("docs/api.md"), re.MULTILINE)

    assert set(azml_dist.__all__) - {"__version__"} <= set(told)


def messages_of_problems() -> dict[str, list[str]]:
    """The messages below each heading of the troubleshooting page, one on a line, in backticks."""
    problems = re.findall(r"^### (.+)\n\n((?:`.+`\n)*)", text_of("docs/troubleshooting.md"), re.MULTILINE)
    return {heading: re.findall(r"^`(.+)`$", lines, re.MULTILINE) for heading, lines in problems}


def test_every_problem_of_the_troubleshooting_page_has_its_messages_below_its_name() -> None:
    headings = re.findall(r"^### (.+)$", text_of("docs/troubleshooting.md"), re.MULTILINE)

    assert list(messages_of_problems()) == headings
    assert not [heading for heading, messages in messages_of_problems().items() if not messages or "…" in heading]


@pytest.mark.parametrize("message", [*chain.from_iterable(messages_of_problems().values())])
def test_every_message_of_the_troubleshooting_page_is_one_of_the_code(message: str) -> None:
    """`…` stands for what is filled in; backticks cannot stand in the page's. `cannot …:` is put before many."""
    pieces = [re.escape(piece.strip()) for piece in message.removeprefix("cannot …: ").split("…")]
    pattern = re.compile(".*".join(pieces), re.DOTALL)

    assert any(pattern.search(text) for text in texts_of_the_code())


@cache
def texts_of_the_code() -> list[str]:
    """Every text in the package as it is printed, what is filled in as `…`."""
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in PACKAGE.rglob("*.py")]
    texts = (shown(node) for tree in trees for node in ast.walk(tree))
    return [text.replace("`", "") for text in texts if text]


def shown(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(shown(part) or "…" for part in node.values)
    return None
