"""The site of the documents: it is built without a warning, its home page works in a browser, and its search finds."""

from __future__ import annotations

import html
import importlib.util
import re
import subprocess
import sys
import threading
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, Browser, browser
from needs import needs

from azml_dist import Job

REPOSITORY = Path(__file__).parents[1]
DOCS = REPOSITORY / "docs"
from_3_11 = pytest.mark.skipif(sys.version_info < (3, 11), reason="sphinx needs Python 3.11")


class Quiet(SimpleHTTPRequestHandler):
    """A server of files that says nothing."""

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does it."""
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--nitpicky", "--conf-dir", "docs"]
    built = subprocess.run(
        [*build, "--doctree-dir", folder / "doctrees", ".", folder / "site"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (built.returncode, built.stderr) == (0, "")
    return folder / "site"


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """The site behind a server: in files, a search cannot read the pages that it found."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as found:
        yield found


@from_3_11
@needs("sphinx", "myst_parser", "furo")
def test_every_link_leads_somewhere_and_notebooks_are_pages(site: Path) -> None:
    """Every page is in the contents, too, and every docstring can be read."""
    notebook = (site / "samples" / "notebooks" / "04_when_it_fails.html").read_text(encoding="utf-8")

    assert "Processes, nodes, ranks" in (site / "docs" / "concepts.html").read_text(encoding="utf-8")
    assert "RunFailed: run" in notebook
    assert 'class="figure"' in notebook


@from_3_11
@needs("sphinx", "myst_parser", "furo")
def test_the_page_on_python_has_each_field_of_a_job_with_its_type(site: Path) -> None:
    page = (site / "docs" / "api.html").read_text(encoding="utf-8")
    lines = re.findall(r'<dt class="sig[^>]*id="azml_dist\.([\w.]+)">(.*?)</dt>', page, re.DOTALL)
    shown = {name: html.unescape(re.sub(r"<[^>]+>", "", line)) for name, line in lines}

    for name, field in signature(Job).parameters.items():
        assert f"{name}: {field.annotation}" in shown[f"Job.{name}"]
    assert "path: str | PathLike[str]" in shown["Job.load"]
    assert not [line for line in shown.values() if "Annotated[" in line]


@from_3_11
@needs("sphinx", "myst_parser", "furo", CHROMIUM)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_home_page_fits_light_and_dark(chromium: Browser, address: str, scheme: str) -> None:
    chromium.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    chromium.visit(f"{address}/docs/index.html")
    pictures = "[...document.querySelectorAll('article img')]"
    filters = chromium.value(f"{pictures}.map(p => [p.src.split('/').pop(), getComputedStyle(p).filter !== 'none'])")

    assert chromium.complaints() == []
    assert chromium.value(f"{pictures}.every(p => p.naturalWidth > 900)")
    assert filters == [["terminal.svg", False], ["idea.svg", scheme == "dark"]]
    assert chromium.value("document.querySelectorAll('.cards li').length") > 10


@from_3_11
@needs("sphinx", "myst_parser", "furo", CHROMIUM)
@pytest.mark.parametrize(
    ("words", "page"),
    [("hang", "When a run hangs"), ("metrics", "Metrics"), ("out of memory", "Troubleshooting > Out of memory")],
)
def test_the_search_finds_the_guide(chromium: Browser, address: str, words: str, page: str) -> None:
    chromium.visit(f"{address}/search.html?q={words.replace(' ', '+')}")
    chromium.await_("/finished/.test(document.querySelector('#search-results').textContent)")

    found = chromium.value("[...document.querySelectorAll('#search-results li > a')].map(a => a.textContent)")
    assert page in found[:5]


def test_every_sample_and_notebook_is_in_the_gallery() -> None:
    gallery = (DOCS / "samples.md").read_text(encoding="utf-8")
    samples = [file.parent for file in (REPOSITORY / "samples").glob("*/README.md")]
    notebooks = list((REPOSITORY / "samples" / "notebooks").glob("*.ipynb"))

    assert samples
    assert not [one.name for one in samples if f"(../samples/{one.name}/README.md)" not in gallery]
    assert not [one.name for one in notebooks if f"(../samples/notebooks/{one.name})" not in gallery]


def test_the_job_on_the_home_page_can_be_run(tmp_path: Path) -> None:
    yaml = re.search(r"^```yaml\n(.*?)^```$", (DOCS / "index.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert yaml
    (tmp_path / "job.yml").write_text(yaml[1])
    (tmp_path / "train.py").write_text("")
    plan = Job.load(tmp_path / "job.yml").plan()

    assert str(plan.world) == "2 nodes x 4 processes = 8"
    assert yaml[1].count("\n") <= 12


def the_recorder() -> Any:
    """`docs/record.py`, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("record", DOCS / "record.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["record"] = module
    spec.loader.exec_module(module)
    return module


record = the_recorder()


@pytest.mark.slow  # it runs the commands
def test_the_recorded_terminal_is_what_the_commands_print_today() -> None:
    """But for names, times, and the order in which ranks write."""

    def gist(lines: list[str]) -> list[str]:
        plain = (re.sub(r"\x1b\[[0-9;]*m", "", line)[: record.COLUMNS] for line in lines)
        # How wide a column of a table is depends on the ages in it; Python 3.10 marks no part of a line.
        volatile = r"\d+ (s|min) ago|\bnow\b|\([^)]*…|[0-9a-f]{6}|\d+(\.\d+)?|[~^]{3,}|\s+"
        return sorted(filter(None, (re.sub(volatile, "", line) for line in plain)))

    def said(lines: list[str]) -> list[str]:
        return sorted({*gist(lines)} - {"[noderank]"})  # how many epochs rank 0 has printed depends on the machine

    kept = ["".join(line.itertext()) for line in drawing("text")]

    assert said(kept) == said([line.text for line in record.record()]), "python docs/record.py records it again"


def test_the_recorded_terminal_names_nobodys_machine_and_moves_only_where_that_is_wanted() -> None:
    text = (DOCS / "terminal.svg").read_text(encoding="utf-8")

    assert not re.search(r"/tmp|/root|/work", text)
    assert "/home/you/digits/train.py" in text
    assert text.index("prefers-reduced-motion:no-preference") < text.index("animation:scroll")
    assert len(text) < 60_000


def test_a_recording_shows_colours_and_escapes_the_rest() -> None:
    line = record.Line(0.0, "\x1b[31m<b>\x1b[0m & \x1b[2Kplain\r")

    assert record._spans(line.text) == '<tspan class="r">&lt;b&gt;</tspan> &amp; plain'


def drawing(tag: str) -> list[ET.Element]:
    return [one for one in ET.parse(DOCS / "terminal.svg").iter() if one.tag.endswith(f"}}{tag}")]
