"""The snapshot is what azure-ai-ml would upload, file by file: held against azure-ai-ml itself."""

from __future__ import annotations

import os
import random
import re
import socket
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from azml_dist import Job, JobError
from azml_dist.azureml.content import content_hash
from azml_dist.plan.snapshot import _parse_rule, take_snapshot
from azml_dist.plan.wildcards import Token, _Walk, matcher, optional


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


def test_rules_behind_a_link_are_seen_from_where_they_are(tmp_path: Path, sdk: Any) -> None:
    code = tree(tmp_path / "code", "train.py", "data/a.csv")
    (tmp_path / "shared.ignore").write_text("/code/data\n/train.py\n")
    (code / ".amlignore").symlink_to("../shared.ignore")

    assert ours(code) == as_azure_uploads(sdk, code) == {"train.py", ".amlignore"}


def test_a_line_ends_where_azure_ai_ml_sees_its_end(tmp_path: Path, sdk: Any) -> None:
    code = tree(tmp_path, "train.py", "a\x0cb", "b", "c", "d")
    (code / ".amlignore").write_bytes(b"a\x0cb\r\nc\rd\n")

    assert ours(code) == as_azure_uploads(sdk, code) == {"train.py", ".amlignore", "b"}


def test_code_may_be_one_file_under_its_own_name(tmp_path: Path, sdk: Any) -> None:
    (tree(tmp_path, "train.py") / ".amlignore").write_text("*\n")
    (tmp_path / "link.py").symlink_to("train.py")

    for name in ("train.py", "link.py"):
        code = take_snapshot(tmp_path / name)
        assert [file.path for file in code.files] == ["train.py"]
        assert content_hash(code) == sdk.get_content_hash(tmp_path / name)


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
        "aabab/ba.b",
        "data/a/b/data/ab",
        "a\n",
        "a\nb",
    ]
    choose = random.Random(6105)
    for _ in range(5000):
        pattern = "".join(choose.choices(words, k=choose.randint(1, 10)))
        assert verdicts(partial(mine, pattern), paths) == verdicts(partial(theirs, sdk, pattern), paths), pattern


@pytest.mark.parametrize(
    ("pattern", "excluded"),
    [
        ("*.py", ["a.py", "d/b.py", "d/e/c.py"]),
        ("/*.py", ["a.py"]),
        ("d/*.py", ["d/b.py"]),
        ("d/**/*.py", ["d/b.py", "d/e/c.py"]),
        ("**/e", ["d/e/c.py"]),
        ("d", ["d/b.py", "d/e/c.py"]),
        ("d/", ["d/b.py", "d/e/c.py"]),
        ("d/**", ["d/b.py", "d/e/c.py"]),
        ("?.py", ["a.py", "d/b.py", "d/e/c.py"]),
        ("[ab].py", ["a.py", "d/b.py"]),
        ("[!ab].py", ["d/e/c.py"]),
        ("[^a].py", ["a.py", "^.py"]),
        ("[]-].py", ["].py"]),
        ("[a.py", ["[a.py"]),
        (r"\*.py", ["*.py"]),
        (r"\[a.py", ["[a.py"]),
        ("#.py", []),
        (r"\#.py", ["#.py"]),
        ("/", []),
        ("  ", []),
    ],
)
def test_a_pattern_excludes_what_git_and_azure_ai_ml_read_in_it(pattern: str, excluded: list[str]) -> None:
    paths = ["a.py", "d/b.py", "d/e/c.py"]
    paths += [one for one in ("^.py", "].py", "[a.py", "*.py", "#.py") if one in excluded]

    assert [path for path in paths if mine(pattern)(path)] == sorted(excluded, key=paths.index)
    if excluded:
        negated = mine(f"!{pattern}")
        assert [path for path in paths if negated(path) is False] == sorted(excluded, key=paths.index)


@pytest.mark.parametrize("pattern", ["a\\", "a" * 5000, "[z-a]"])
def test_a_pattern_that_cannot_be_read_is_refused_with_its_line(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"^line 1, .* is not a valid pattern \("):
        mine(pattern)


def test_as_many_files_as_are_allowed_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = tree(tmp_path / "code", "a.py", "b/c.py", "b/d.py")
    monkeypatch.setattr("azml_dist.plan.snapshot.MAX_FILES", 3)
    assert ours(code) == {"a.py", "b/c.py", "b/d.py"}
    monkeypatch.setattr("azml_dist.plan.snapshot.MAX_FILES", 2)
    with pytest.raises(JobError, match="has more than 2 files"):
        ours(code)


def test_many_wildcards_mean_what_few_mean() -> None:
    """Few are a regular expression, in which `$` also matches before a final line break; many are walked along."""
    choose = random.Random(7)
    chars = [Token("a"), Token("b"), Token("[ab]"), Token("[^/]"), Token(r"[\s\S]"), Token("/"), Token(r"\n")]
    tokens = [*chars, *(one.repeated() for one in chars[2:5])]
    paths = ["", "a", "ab", "a/b", "a\n", "\n", "ab\n", "a\nb", "aab/bba", "aab/bba\n", "b" * 20]
    for _ in range(2000):
        few = choose.choices(tokens, k=choose.randint(1, 5))
        few += optional([choose.choice(chars), choose.choice(tokens)]) if choose.random() < 0.5 else []
        if sum(token.is_repeated for token in few) <= 3:
            by_re, by_walking = matcher(few), _Walk(few).matches
            assert [by_walking(path) for path in paths] == [by_re(path) for path in paths], few


@pytest.mark.parametrize(
    "pattern", ["*a" * 30, "**/" + "*a*" * 20 + "b", "a/" + "**/a/" * 40 + "b", "[" * 4000, "?*" * 100, "*[!a]" * 50]
)
def test_no_pattern_takes_for_ever(pattern: str, tmp_path: Path) -> None:
    """The first took Python's `re` longer than anybody waited, on a name of 60 letters."""
    code = tree(tmp_path, "train.py", "a" * 200 + "c", "/".join(["a"] * 100) + "/c")
    (code / ".amlignore").write_text(pattern)

    assert "train.py" in ours(code)


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda ignore: os.mkfifo(ignore), "it is a named pipe"),
        (lambda ignore: ignore.mkdir(), "it is a folder"),
        (lambda ignore: ignore.symlink_to("/dev/zero"), "it is a device"),
        (lambda ignore: ignore.write_text("x" * 5000), "line 1, 'x.*it has 5,000 characters"),
        (lambda ignore: ignore.write_text("abc\n" * 300_000), "it is longer than 1,000,000 characters"),
        (lambda ignore: ignore.write_bytes(b"\xff\xfe"), "can't decode byte 0xff"),
    ],
)
@pytest.mark.parametrize("name", [".amlignore", ".gitignore"])
def test_an_ignore_file_that_is_none_is_said(
    prepare: Callable[[Path], object], message: str, name: str, tmp_path: Path
) -> None:
    prepare(tree(tmp_path, "train.py") / name)

    with pytest.raises(JobError, match=message) as error:
        take_snapshot(tmp_path)

    assert error.value.problems[0].where == str(tmp_path / name)


@pytest.mark.parametrize(
    ("prepare", "what"),
    [
        (lambda path: path.symlink_to("/dev/zero"), "a device"),
        (lambda path: path.symlink_to("/proc/self/maps"), "a file of the kernel"),
        (lambda path: os.mkfifo(path), "a named pipe"),
        (lambda path: listening_at(path), "a socket"),
    ],
)
def test_only_files_are_code(
    prepare: Callable[[Path], object], what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link to `/dev/zero` filled the disk."""
    monkeypatch.chdir(tmp_path)
    code = tree(tmp_path / "code", "train.py", "pkg/m.py")
    prepare(code / "pkg" / "odd")
    job = Job(command="x", code=str(code))

    with pytest.raises(JobError) as error:
        job.plan()
    assert error.value.problems[0].message == f"pkg/odd, {what}, is in the code folder, but only files can be uploaded"

    (code / ".amlignore").write_text("odd\n")
    assert [file.path for file in job.plan().code.files] == [".amlignore", "pkg/m.py", "train.py"]


def listening_at(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))  # an address has little room


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
    return lambda path: rule.excludes if rule and rule.matches(path) else None


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


def test_a_sibling_whose_name_begins_alike_is_outside(tmp_path: Path) -> None:
    code = tree(tmp_path / "code", "train.py")
    tree(tmp_path / "code2", "other.py")
    (code / "link.py").symlink_to("../code2/other.py")
    (code / "inside.py").symlink_to("train.py")

    assert take_snapshot(code).outside == ("link.py",)


@pytest.mark.parametrize("file", ["__pycache__/m.pyc", "pkg/__pycache__/m.pyc", ".git/HEAD"])
def test_files_that_nobody_wants_there_are_pointed_out(file: str, tmp_path: Path) -> None:
    job = Job(command="x", environment="azureml:e:1", code=str(tree(tmp_path, "train.py", ".gitkeep")))
    assert job.plan().findings == ()

    tree(tmp_path, file)
    [found] = job.plan().findings
    assert found.code == "hidden-files-uploaded"
    assert re.match(r"1 file in .* is uploaded", found.message)


def test_the_plan_counts_files_and_bytes(tmp_path: Path) -> None:
    tree(tmp_path, "train.py", "pkg/m.py")

    code = Job(command="x", code=str(tmp_path)).plan().code

    assert (len(code.files), code.bytes) == (2, len("content of train.py") + len("content of pkg/m.py"))


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (
            lambda code: (code / ".amlignore").write_text("*\n"),
            "the ignore file excludes every file of the code folder .*",
        ),
        (lambda code: (code / "gone").symlink_to("nowhere"), "the link `gone` in the code folder is broken"),
        (lambda code: (code / ".amlignore").write_text("a\\"), "line 1, .* is not a valid pattern"),
    ],
)
def test_what_azure_ai_ml_would_fail_on_is_one_clear_line(
    prepare: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    prepare(tree(tmp_path, "train.py"))

    with pytest.raises(JobError, match=message):
        Job(command="x", code=str(tmp_path)).plan()
