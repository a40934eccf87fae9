"""The snapshot is what azure-ai-ml would upload, file by file: held against azure-ai-ml itself."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from azml_dist import Job, JobError
from azml_dist.snapshot import _parse_rule, take_snapshot


@pytest.fixture(scope="module")
def sdk() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from azure.ai.ml._utils import _asset_utils

    return _asset_utils


def tree(root: Path, *files: str) -> Path:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"content of {name}")
    return root


def as_azure_uploads(sdk: Any, root: Path) -> set[str]:
    found = sdk.get_upload_files_from_folder(root, ignore_file=sdk.get_ignore_file(root))
    return {destination for _, destination in found}


def ours(root: Path) -> set[str]:
    return {file.path for file in take_snapshot(root).files}


FILES = ("train.py", ".git/HEAD", "pkg/__pycache__/m.pyc", "data/a.csv", "data/keep.txt", "outputs/m.pt", "a b/c d.txt")
IGNORE_FILES: dict[str, dict[str, str]] = {
    "none": {},
    "gitignore": {".gitignore": "data/\n*.pyc\n"},
    "amlignore_wins": {".gitignore": "*.py\n", ".amlignore": "data/\n"},
    "empty_amlignore": {".gitignore": "data/\n", ".amlignore": ""},
    "nested": {"data/.amlignore": "*\n", ".gitignore": "outputs\n"},
    "brought_back": {".amlignore": "data/\n!data/keep.txt\n"},
    "comments_and_blanks": {".amlignore": "\n# all data\n  data/  \n\n/\n"},
    "anchored": {".amlignore": "/train.py\npkg/*\n"},
    "byte_order_mark": {".amlignore": "\ufeffdata/\n"},
    "everything_but": {".amlignore": "*\n!train.py\n!pkg/**\n"},
}


@pytest.mark.parametrize("case", IGNORE_FILES)
def test_the_files_are_those_that_azure_ai_ml_uploads(case: str, tmp_path: Path, sdk: Any) -> None:
    tree(tmp_path, *FILES)
    for name, text in IGNORE_FILES[case].items():
        (tmp_path / name).write_text(text)

    assert ours(tmp_path) == as_azure_uploads(sdk, tmp_path)


def test_links_are_followed_and_matched_by_their_real_path(tmp_path: Path, sdk: Any) -> None:
    outside = tree(tmp_path / "outside", "big.bin", "small.txt")
    code = tree(tmp_path / "code", "train.py")
    (code / "linked").symlink_to(outside)
    (code / "file.txt").symlink_to(outside / "small.txt")
    (code / ".amlignore").write_text("linked/big.bin\n*.nothing\n")

    assert ours(code) == as_azure_uploads(sdk, code)
    assert take_snapshot(code).outside == ("file.txt", "linked/big.bin", "linked/small.txt")


def test_any_pattern_means_what_it_means_to_azure_ai_ml(sdk: Any) -> None:
    """A few thousand patterns of a fixed seed, over paths with the characters that patterns are made of."""
    words = ["a", "b", "*", "**", "?", "/", "[", "]", "!", "^", "-", "\\", "#", " ", ".", "data"]
    paths = [
        "a",
        "ab",
        "a/b",
        "a/b/a",
        "data/a",
        "data/b/a",
        ".a",
        "a.b",
        "a-b",
        "!a",
        "b/data/a",
        "../a/b",
        "[a",
        "#a",
    ]
    choose = random.Random(6105)
    for _ in range(5000):
        pattern = "".join(choose.choices(words, k=choose.randint(1, 7)))
        assert verdicts(partial(mine, pattern), paths) == verdicts(partial(theirs, sdk, pattern), paths), pattern


def verdicts(compiled: Callable[[], Callable[[str], bool | None]], paths: list[str]) -> list[bool | None] | str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            matches = compiled()
    except ValueError:
        return "refused"
    return [matches(path) for path in paths]


def mine(pattern: str) -> Callable[[str], bool | None]:
    rule = _parse_rule(1, pattern)
    return lambda path: rule.excludes if rule and rule.regex.match(path) else None


def theirs(sdk: Any, pattern: str) -> Callable[[str], bool | None]:
    try:
        found = sdk.GitWildMatchPattern(pattern)
    except Exception as error:
        raise ValueError from error
    return lambda path: found.include if found.include is not None and found.match_file(path) else None


def test_what_is_left_out_names_the_rule(tmp_path: Path) -> None:
    tree(tmp_path, "train.py", "data/a.csv")
    (tmp_path / ".amlignore").write_text("# data\ndata/\n")

    [excluded] = take_snapshot(tmp_path).excluded

    assert (excluded.path, excluded.rule) == ("data/a.csv", ".amlignore:2: data/")


def test_the_plan_counts_files_and_bytes(tmp_path: Path) -> None:
    tree(tmp_path, "train.py", "pkg/m.py")

    code = Job(command="x", code=str(tmp_path)).plan().code

    assert (len(code.files), code.bytes) == (2, len("content of train.py") + len("content of pkg/m.py"))


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda code: (code / ".amlignore").write_text("*\n"), "every file of the code folder .* is left out"),
        (lambda code: (code / "gone").symlink_to("nowhere"), "the link gone in the code folder leads nowhere"),
        (lambda code: (code / ".amlignore").write_text("a\\"), "line 1, .* is not a pattern"),
    ],
)
def test_what_azure_ai_ml_would_fail_on_is_one_clear_line(
    prepare: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    prepare(tree(tmp_path, "train.py"))

    with pytest.raises(JobError, match=message):
        Job(command="x", code=str(tmp_path)).plan()
