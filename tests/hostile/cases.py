"""Calls of the command line that mean something wrong, each in a folder of its own."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hostile.scalars import COMMAND, COMPONENT, SCALARS, SWEEP, Raw, flow, mutate, spoil, yaml_text


@dataclass
class Call:
    """One call: what is typed, and the world that it is typed in."""

    args: list[str]
    env: dict[str, str | None] = field(default_factory=dict)
    """Changes to the environment; None takes a variable away."""
    stdout: str = ""
    """`closed`, or a file; a pipe that is read otherwise."""
    stderr: str = ""
    folder_is_gone: bool = False
    may_make: tuple[str, ...] = ()
    """What it may leave behind, relative to the folder of the case."""


KEPT = ("runs", "home/.azml_dist")
"""What a run, or a look at runs, keeps: the run itself, its root's index, where roots are, what was run last."""
Maker = Callable[[random.Random, Path], Call]
NAMES = (
    *(
        "",
        " ",
        ".",
        "..",
        "/",
        "//",
        "~",
        "-",
        "--",
        "-x",
        "a/b",
        "../runs/good",
        "./good",
        "good/",
        "good/../good",
        "GOOD",
    ),
    *(
        "a" * 300,
        "a" * 300 + "/b",
        "a/" * 3000,
        "\x1b[2J",
        "a\nb",
        "\udcff\udcfe",
        "a\udcffb",
        "é",
        "\u202e",
        "*",
        "go?d",
        "[good]",
    ),
    *(
        "good",
        "sweep",
        "\U0001f600",
        "$(touch PWNED)",
        "%s",
        "{0}",
        "con",
        "NUL",
        "good\x00"[:4],
        "good ",
        "/dev/null",
        "/proc/self",
    ),
)
FIELDS = (
    *(
        "node_count",
        "resources.instance_count",
        "resources",
        "inputs.epochs",
        "inputs",
        "inputs.nope",
        "inputs.more",
        "outputs.o",
    ),
    *(
        "outputs.o.path",
        "distribution",
        "distribution.type",
        "distribution.process_count_per_node",
        "tags.a",
        "tags",
        "command",
    ),
    *(
        "environment",
        "environment.image",
        "environment_variables.A",
        "limits.timeout",
        "timeout",
        "name",
        "code",
        "queue_settings",
    ),
    *(
        "services.s.type",
        "identity",
        "identity.type",
        "resources.properties.a.b",
        "",
        ".",
        "..",
        "a.b.c",
        "type",
        "$schema",
        "job",
    ),
    *(
        "trial.command",
        "trial",
        "search_space.lr",
        "objective.goal",
        "limits.max_total_trials",
        "sampling_algorithm",
        "jobs.a",
        "é",
    ),
    *(
        "inputs." + "a." * 2000,
        "a" * 300,
        "\x1b[2J",
        "__class__",
        "model_fields",
        "with_",
        "early_termination.type",
        "name.first",
    ),
)


def job_file(random_: random.Random, folder: Path) -> Call:
    """A YAML with something wrong in it."""
    (folder / "work/job.yml").write_bytes(yaml_text(random_))
    return _with_job(random_, ["job.yml"])


def other_file(random_: random.Random, folder: Path) -> Call:
    """A job that is sound, and names an environment, a conda file or a component that is not."""
    work = folder / "work"
    environment = {"name": "e", "image": "i", "conda_file": "conda.yml", "tags": {"a": "b"}, "description": "d"}
    conda = {"name": "c", "channels": ["conda-forge"], "dependencies": ["python=3.11", {"pip": ["torch"]}]}
    step = {"type": "command", "component": "./component.yml", "inputs": {"a": 1, "b": "x"}, "compute": "azureml:c"}
    files: dict[str, Any] = {"env.yml": environment, "conda.yml": conda, "component.yml": COMPONENT}
    files["job.yml"] = random_.choice(
        ({"command": "true", "environment": "file:env.yml"}, {"type": "pipeline", "jobs": {"s": step}})
    )
    odd = random_.choice(("env.yml", "conda.yml") if "command" in files["job.yml"] else ("component.yml",))
    for name, tree in files.items():
        copy = json.loads(json.dumps(tree))
        if name == odd:
            mutate(copy, random_)
        text = "".join(f"{json.dumps(key)}: {flow(value)}\n" for key, value in copy.items()).encode(
            "utf-8", "surrogatepass"
        )
        (work / name).write_bytes(spoil(text, random_) if name == odd and random_.random() < 0.3 else text)
    return _with_job(random_, ["job.yml"])


def setting(random_: random.Random, folder: Path) -> Call:
    """`--set` and `--input` with odd fields and values."""
    tree = random_.choice((COMMAND, COMMAND, SWEEP))
    (folder / "work/job.yml").write_text("".join(f"{key}: {flow(value)}\n" for key, value in tree.items()))
    typed = ["job.yml"]
    for _ in range(random_.choice((1, 1, 3))):
        option = random_.choice(("--set", "--set", "--set", "--input"))
        equals = random_.choice(("=", "=", "=", "==", "", ":"))
        typed += [option, f"{random_.choice(FIELDS)}{equals}{_text(random_)}"]
    return _with_job(random_, typed)


def name(random_: random.Random, folder: Path) -> Call:
    """The name of a run that is none, or nearly one."""
    command = random_.choice(("status", "logs", "cancel", "download"))
    typed = [command, random_.choice(NAMES), *_options(random_, command)]
    return Call(typed, may_make=("work",) if command == "download" else ())


INDEX = "runs/.index.json"
"""What `list` read of each run, so that it need not read it again."""
PAGES = ("runs/bad/page.html", "runs/good/page.html")


def run_folder(random_: random.Random, folder: Path) -> Call:
    """A run whose files were damaged, and commands that look at it."""
    shutil.copytree(folder / "runs/good", folder / "runs/bad")
    run = folder / "runs/bad"
    for _ in range(random_.choice((1, 1, 2))):
        random_.choice((_damage_state, _damage_state, _damage_state, _damage_logs, _damage_index, _odd_files))(
            random_, run
        )
    command = random_.choice(("list", "list", "status", "status", "logs", "logs", "cancel", "download", "page", "page"))
    typed = [command, *([] if command == "list" else [random_.choice(("bad", "bad", "bad", "good", "bda"))])]
    return Call([*typed, *_options(random_, command)], may_make=("work", "runs/bad/cancel", INDEX, *PAGES))


def noted_roots(random_: random.Random, folder: Path) -> Call:
    """A file of noted roots that is odd, or names odd folders."""
    noted = folder / "home/.azml_dist/roots"
    noted.parent.mkdir()
    how = random_.randrange(5)
    if how == 0:
        os.mkfifo(noted)
    elif how == 1:
        noted.mkdir()
    elif how == 2:
        noted.symlink_to(noted)
    else:
        lines = [_encoded(random_.choice((*NAMES, str(folder / "runs"), "/dev/zero", "/root/none"))) for _ in range(9)]
        noted.write_bytes(b"\n".join(lines) + random_.choice((b"", b"\n", b"\xff\xfe\n", b"\0\n")))
    command = random_.choice(("list", "status", "logs"))
    typed = [
        command,
        *([] if command == "list" else [random_.choice(("good", "nope", "\x1b[2J"))]),
        *_options(random_, command),
    ]
    root = random_.choice((None, str(folder / "runs"), _name(random_)))
    return Call(typed, env={"AZML_DIST_ROOT": root}, may_make=(INDEX,))


def code_folder(random_: random.Random, folder: Path) -> Call:
    """Code with odd names, links and ignore files."""
    code = folder / "work/src"
    tree = {"command": "true", "code": random_.choice(("src", "src", "src", "."))}
    (folder / "work/job.yml").write_text(json.dumps(tree))
    for _ in range(random_.choice((1, 2, 3))):
        _odd_file(random_, code)
    if random_.random() < 0.6:
        _ignore_file(random_, code / random_.choice((".amlignore", ".gitignore")))
    return _with_job(random_, ["job.yml"], runs=0.3)


def command_line(random_: random.Random, folder: Path) -> Call:
    """Words and options in any order."""
    (folder / "work/job.yml").write_text(json.dumps({"command": "echo hi"}))
    words = (
        *(
            "plan",
            "export",
            "status",
            "logs",
            "list",
            "download",
            "schema",
            "completion",
            "bash",
            "rnu",
            "job.yml",
            "good",
            ".",
        ),
        *(
            "--json",
            "--root",
            "--tail",
            "--rank",
            "--node",
            "--follow",
            "--timeout",
            "--retries",
            "--launcher",
            "--python",
        ),
        *(
            "--max-trials",
            "--parallel",
            "--apart",
            "--to",
            "--set",
            "--input",
            "--help",
            "-h",
            "--version",
            "--",
            "-",
            "-f",
            "--nope",
        ),
        *(
            "0",
            "-1",
            "1e999",
            "nan",
            "inf",
            "1" + "0" * 30,
            "9" * 5000,
            "0x1",
            "",
            " ",
            "\udcff",
            "\x1b[2J",
            "a" * 300,
            "direct",
        ),
    )
    first = random_.choice(
        ("plan", "plan", "export", "status", "logs", "list", "schema", "completion", "download", *words)
    )
    return Call(
        [first, *(random_.choice(words) for _ in range(random_.randrange(5)))], may_make=("work", "home", "runs")
    )


def python_file(random_: random.Random, folder: Path) -> Call:
    """A Python file that does something else than to make a job."""
    text = random_.choice(PYTHON)
    (folder / "work/job.py").write_bytes(text.encode("utf-8", "surrogatepass"))
    ref = random_.choice(
        ("job.py:job", "job.py:job", "job.py:job", "job.py", "job.py:", "job.py:j b", "job.py:__dict__", "no.py:job")
    )
    return _with_job(random_, [ref], runs=0.1)


def surroundings(random_: random.Random, folder: Path) -> Call:
    """A sound call, in a world that is not."""
    (folder / "work/job.yml").write_text(json.dumps({"command": "echo hi"}))
    command = random_.choice(
        ("plan", "plan", "export", "list", "status", "logs", "run", "download", "cancel", "schema", "submit")
    )
    thing = {
        "plan": ["job.yml"],
        "export": ["job.yml"],
        "run": ["job.yml", "--launcher", "direct"],
        "submit": ["job.yml"],
    }
    typed = [command, *thing.get(command, [] if command in ("list", "schema") else ["good"])]
    typed += ["--json"] if random_.random() < 0.4 else []
    call = Call(typed, may_make=(*KEPT, "work/good", "work/relative"))
    for _ in range(random_.choice((1, 1, 2))):
        _spoil_world(random_, folder, call)
    return call


MAKERS: tuple[tuple[Maker, int], ...] = (
    (job_file, 36),
    (other_file, 8),
    (setting, 14),
    (name, 7),
    (run_folder, 14),
    (noted_roots, 4),
    (code_folder, 7),
    (command_line, 8),
    (python_file, 4),
    (surroundings, 6),
)
PYTHON = (
    "raise ValueError('\\x1b[2J')",
    "import sys; sys.exit(0)",
    "import sys; sys.exit('\\x1b[2J')",
    "raise SystemExit",
    "raise KeyError(None)",
    "raise BaseException",
    "raise GeneratorExit",
    "def f(): f()\nf()",
    "x = (" * 200,
    "x = " + "[" * 5000,
    "\0",
    "\ud800",
    "# coding: nope\njob = 1",
    "job = None",
    "from azml_dist import Job\njob = Job(command='x', name='\\x1b[2J')",
    "from azml_dist import Job\njob = Job(command=5)",
    "from azml_dist import Job\njob = Job",
    "from azml_dist import Job\njob = [Job(command='x')]",
    "from azml_dist import Job\njob = Job(command='echo', inputs={'a': object()})",
    "class A:\n    def __getattr__(self, name): raise RuntimeError(name)\njob = A()",
    "class A:\n    def __repr__(self): raise RuntimeError\n    __str__ = __repr__\njob = A()",
    "class A(Exception):\n    def __str__(self): raise RuntimeError('no')\nraise A",
    "class T(type):\n    @property\n    def __name__(self): raise RuntimeError\njob = T('x', (), {})()",
    "import os; os.chdir('/'); job = 1",
    "def __getattr__(name): raise ValueError(name)",
    "try:\n    1 / 0\nexcept Exception as error:\n    raise KeyError({}) from error",
    "raise OSError(1, 'x', 'y')",
    "raise BrokenPipeError",
    "raise MemoryError",
    "raise UnicodeDecodeError('a', b'b', 0, 1, 'c')",
    "import click; raise click.Abort",
    "import click; raise click.UsageError('\\x1b[2J')",
)


def _with_job(random_: random.Random, typed: list[str], runs: float = 0.08) -> Call:
    command = random_.choice(("plan", "plan", "plan", "export", "submit" if random_.random() < 0.1 else "plan"))
    if random_.random() < runs:
        launcher = ["--launcher", "direct"] if random_.random() < 0.9 else []
        return Call(["run", *typed, *launcher, "--timeout", "20"], may_make=KEPT)
    return Call([command, *typed, *(["--json"] if random_.random() < 0.4 else [])])


def _options(random_: random.Random, command: str) -> list[str]:
    typed = ["--json"] if random_.random() < 0.4 else []
    if command == "logs" and random_.random() < 0.5:
        number = random_.choice(("0", "1", "-1", "99", "1" + "0" * 30, "x", "nan", "9" * 5000))
        typed += [random_.choice(("--rank", "--node", "--tail")), number]
    if command == "logs" and random_.random() < 0.2:
        typed += ["--follow"]
    if command == "download" and random_.random() < 0.7:
        typed += [
            "--to",
            random_.choice(
                ("to", "job.yml", "fifo", "loop", "/dev/null", "\udcff", "a" * 300, "", "to/" * 30, "/proc/x")
            ),
        ]
    if random_.random() < 0.1:
        typed += ["--root", _name(random_)]
    return typed


def _text(random_: random.Random) -> str:
    if random_.random() < 0.1:
        return random_.choice(
            (
                "[" * 20000,
                "{" * 20000,
                "[" * 900 + "]" * 900,
                "{a: " * 300,
                "&a [*a]",
                "- " * 20000,
                "? " * 9000,
                "!" * 9000,
            )
        )
    value = random_.choice(SCALARS)
    return (str(value) if isinstance(value, Raw | str) else flow(value)).replace("\0", "")


def _name(random_: random.Random) -> str:
    return random_.choice(NAMES)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


_STATES = (
    b"",
    b"null",
    b"[]",
    b"{}",
    b"5",
    b'"x"',
    b"NaN",
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b"\xff\xfe",
    b"\0",
    b"{",
    b"\xef\xbb\xbf{}",
)
_VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        "",
        "x",
        "\x1b[2J",
        "../../../etc/passwd",
        "/etc/passwd",
        -1,
        0,
        1.5,
        10**30,
        10**400,
        float("nan"),
        float("inf"),
    ),
    *(
        [],
        {},
        [None],
        {"a": None},
        [[]],
        "a" * 300,
        "é\udcff",
        "Completed",
        "Running",
        "user_logs",
        "user_logs/../../x",
        3,
        "\x9b2J",
    ),
    *("sweep", "pipeline", -(10**30), 1e308, "a\nb", [{}], [{"rank": None}], {"world_size": "x"}),
)


def _damage_state(random_: random.Random, run: Path) -> None:
    file = run / "run.json"
    how = random_.randrange(8)
    if how == 0 and file.exists():
        file.unlink()
        random_.choice(
            (os.mkfifo, os.mkdir, lambda f: os.symlink(f, f), lambda f: os.symlink("/dev/zero", f), _socket)
        )(file)
        return
    if how == 1 or not file.is_file():
        file.unlink() if file.is_file() else None
        file.exists() or file.is_symlink() or file.write_bytes(random_.choice(_STATES))
        return
    data = file.read_bytes()
    if how == 2:
        at = random_.randrange(len(data) + 1)
        file.write_bytes(random_.choice((data[:at], data + data, data[:at] + random_.randbytes(2) + data[at:])))
        return
    tree = _parsed(data)
    if tree:
        mutate(tree, random_, _VALUES)
        mutate(tree, random_, _VALUES) if tree and random_.random() < 0.5 else None
        file.write_text(json.dumps(tree))


def _parsed(data: bytes) -> Any:
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return tree if isinstance(tree, dict) else None


def _damage_logs(random_: random.Random, run: Path) -> None:
    log = run / random_.choice(
        ("user_logs/std_log_process_0.txt", "user_logs", "artifacts", "outputs", "system_logs", "run.lock")
    )
    if log.is_dir() and not log.is_symlink():
        shutil.rmtree(log)
    else:
        log.unlink(missing_ok=True)
    make = random_.choice(
        (None, os.mkfifo, os.mkdir, lambda f: os.symlink(f, f), lambda f: os.symlink("/dev/null", f), _socket)
    )
    if make and log.parent.is_dir():
        make(log)


def _damage_index(random_: random.Random, run: Path) -> None:
    index = run / "merged.idx"
    if not index.is_file():
        return
    data = index.read_bytes()
    record = (99).to_bytes(4, "little") + (7).to_bytes(8, "little")
    huge = (0).to_bytes(4, "little") + (2**63 + 5).to_bytes(8, "little")
    far = (2**32 - 1).to_bytes(4, "little") + (3).to_bytes(8, "little")
    index.write_bytes(
        random_.choice(
            (data[:-5], data[:5], data + record, data + huge, data + far, random_.randbytes(120), b"", data * 50)
        )
    )


def _odd_files(random_: random.Random, run: Path) -> None:
    """Files that a job may leave in its outputs and artifacts."""
    folder = run / random_.choice(("outputs", "outputs/o", "artifacts", "user_logs"))
    if not folder.parent.is_dir() or folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        return
    folder.mkdir(exist_ok=True)
    _odd_file(random_, folder)


def _odd_file(random_: random.Random, folder: Path) -> None:
    inside = os.fsencode(folder)
    name = _encoded(
        random_.choice(("a", "é", "\udcff", "\x1b[2J", "a\nb", "a" * 250, " ", "-rf", "*", "'", '"', "\u202e", "[a"))
    )
    path = os.path.join(inside, name)
    if os.path.lexists(path):
        return
    how = random_.randrange(9)
    if how < 3:
        Path(os.fsdecode(path)).write_text("x")
    elif how == 3:
        os.mkfifo(path)
    elif how == 4:
        os.symlink(random_.choice((b"nowhere", b"/dev/zero", b"/proc/self/root", b"..", b"/etc/shadow", name)), path)
    elif how == 5:
        os.makedirs(os.path.join(path, *[b"d"] * random_.choice((1, 50))))
    elif how == 6:
        _socket(os.fsdecode(path))
    else:
        os.mkdir(path)
        os.symlink(random_.choice((b"..", b".", b"../..", path)), os.path.join(path, b"up"))


def _ignore_file(random_: random.Random, file: Path) -> None:
    how = random_.randrange(6)
    if how < 3:
        (os.mkfifo, os.mkdir, lambda f: os.symlink(f, f))[how](file)
    else:
        lines = (
            b"*a" * 30,
            b"\xff",
            b"[",
            b"!",
            b"\\",
            b"**",
            b"/",
            b"**/**/**",
            b"[!]",
            b"[z-a]",
            b"*" * 2000,
            b"a" * 90_000,
            b"*\0",
            b"\x1b[2J",
        )
        file.write_bytes(b"\n".join(random_.choice(lines) for _ in range(random_.choice((1, 4)))))


def _socket(path: str | Path) -> None:
    """A socket, if its path is short enough for one."""
    here = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.fsencode(f"/proc/self/fd/{here}/") + os.fsencode(os.path.basename(path))[:60])
    except OSError:
        pass
    finally:
        os.close(here)


def _spoil_world(random_: random.Random, folder: Path, call: Call) -> None:
    odd = random_.choice(
        (
            "/dev/null",
            "/nowhere",
            "",
            "relative",
            str(folder / "work/job.yml"),
            str(folder / "work/loop"),
            "\udcff",
            "a" * 300,
        )
    )
    how = random_.randrange(10)
    if how == 0:
        call.stdout = random_.choice(("/dev/full", "closed"))
    elif how == 1:
        call.stderr = random_.choice(("/dev/full", "closed"))
    elif how == 2:
        call.folder_is_gone = True
    elif how == 3:
        call.env |= {"HOME": odd}
    elif how == 4:
        call.env |= {"HOME": None, "NO_PASSWD": "1"}
    elif how == 5:
        call.env |= {"TMPDIR": odd}
    elif how == 6:
        call.env |= {"AZML_DIST_ROOT": odd}
    elif how == 7:
        call.env |= {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    elif how == 8:
        call.env |= {"PATH": odd}
    else:
        (folder / "work/config.json").write_bytes(
            random_.choice((*_STATES, b'{"subscription_id": 5}', b'{"workspace_name": null}'))
        )
