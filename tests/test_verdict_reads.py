"""What a verdict reads: tracebacks of any shape, folders and zips of logs, and what it hides."""

from __future__ import annotations

import json
import os
import tracemalloc
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from judging import CODE, LOST, log, raised, verdict
from running import call, here, pytorch

from azml_dist.errors import DistError, NotFound, RunFailed
from azml_dist.verdict.dumps import judge_with
from azml_dist.verdict.folder import read_logs
from azml_dist.verdict.hidden import hide, secret_values
from azml_dist.verdict.judge import judge
from azml_dist.verdict.known import Ended, Known
from azml_dist.verdict.tracebacks import tracebacks
from azml_dist.verdict.verdict import Verdict

# --- tracebacks


def test_a_chain_names_its_cause_and_keeps_its_end() -> None:
    text = (
        f"{raised('OSError: disk')}\n\nDuring handling of the above exception, another exception occurred:\n\n"
        f"{raised('KeyError: 1')}\n\nThe above exception was the direct cause of the following exception:\n\n"
        f"{raised('ValueError: bad')}"
    )
    [one] = tracebacks(text.splitlines())

    assert [raised_.name for raised_ in one.chain] == ["OSError", "KeyError", "ValueError"]
    assert [line.text for line in verdict({0: text}).evidence] == ["OSError: disk", "ValueError: bad"]


def test_a_function_that_tensorflow_wrote_anew_is_not_the_users_file() -> None:
    text = f"""Traceback (most recent call last):
  File "{CODE}/train.py", line 17, in <module>
    step(x)
  File "/opt/conda/lib/python3.11/site-packages/tensorflow/python/util/traceback_utils.py", line 153, in error_handler
    raise e.with_traceback(filtered_tb) from None
  File "/tmp/__autograph_generated_filelhee82zj.py", line 12, in tf__step
    retval_ = ag__.converted_call(ag__.ld(strategy).run, (), None, fscope)
ValueError: in user code:

    File "{CODE}/train.py", line 15, in step  *
        return strategy.run(work)

    ValueError: destinations can not be empty"""
    found = verdict({0: text})

    assert (found.kind, found.file, found.line) == ("user-code", "train.py", 17)


WORKER = f'''Traceback (most recent call last):
  File "{CODE}/train.py", line 40, in <module>
    for batch in loader:
  File "/opt/conda/lib/python3.10/site-packages/torch/_utils.py", line 722, in reraise
    raise exception
ValueError: Caught ValueError in DataLoader worker process 0.
Original Traceback (most recent call last):
  File "/opt/conda/lib/python3.10/site-packages/torch/utils/data/_utils/worker.py", line 351, in _worker_loop
    data = fetcher.fetch(index)
  File "{CODE}/data.py", line 58, in __getitem__
    raise ValueError("bad item")
ValueError: bad item'''
POOL = f'''multiprocessing.pool.RemoteTraceback:
"""
Traceback (most recent call last):
  File "/usr/lib/python3.10/multiprocessing/pool.py", line 125, in worker
    result = (True, func(*args, **kwds))
  File "{CODE}/data.py", line 58, in load
    return 1 / 0
ZeroDivisionError: division by zero
"""

The above exception was the direct cause of the following exception:

{raised("ZeroDivisionError: division by zero")}'''
SPAWN = f'''Traceback (most recent call last):
  File "{CODE}/train.py", line 40, in <module>
    mp.spawn(main, nprocs=2)
  File "/usr/lib/python3/dist-packages/torch/multiprocessing/spawn.py", line 158, in join
    raise ProcessRaisedException(msg, error_index, failed_process.pid)
torch.multiprocessing.spawn.ProcessRaisedException:

-- Process 1 terminated with the following error:
{raised("RuntimeError: bad", "data.py", 58)}'''
RAY = f'''Traceback (most recent call last):
  File "{CODE}/train.py", line 40, in <module>
    ray.get(ref)
ray.exceptions.RayTaskError(ValueError): \x1b[36mray::work()\x1b[39m (pid=4, ip=10.0.0.4)
  File "{CODE}/data.py", line 58, in work
    raise ValueError("bad")
ValueError: bad'''
GROUP = f"""  + Exception Group Traceback (most recent call last):
  |   File "{CODE}/train.py", line 40, in <module>
  |     raise ExceptionGroup("all", errors)
  | ExceptionGroup: all (2 sub-exceptions)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File "{CODE}/data.py", line 58, in one
    |     int("x")
    | ValueError: invalid literal for int() with base 10: 'x'
    +---------------- 2 ----------------
    | Traceback (most recent call last):
    |   File "{CODE}/train.py", line 3, in two
    |     {{}}["y"]
    | KeyError: 'y'
    +------------------------------------"""
RICH = f"""╭─────────────────────────────── Traceback (most recent call last) ────────────────────────────────╮
│ {CODE}/data.py:58 in load                                          │
│                                                                                                  │
│   57 │   for item in items:                                                                      │
│ ❱ 58 │   │   check(item)                                                                         │
│                                                                                                  │
│ /opt/conda/lib/python3.10/site-packages/torch/nn/modules/                                        │
│ module.py:1532 in _wrapped_call_impl                                                             │
╰──────────────────────────────────────────────────────────────────────────────────────────────────╯
TypeError: bad item"""
FATAL = f"""Fatal Python error: Segmentation fault

Thread 0x00007f1 (most recent call first):
  File "/usr/lib/python3.10/threading.py", line 324 in wait

Current thread 0x00007f2 (most recent call first):
  File "/opt/conda/lib/python3.10/site-packages/lib/ext.py", line 7 in call
  File "{CODE}/data.py", line 58 in load
  File "{CODE}/train.py", line 40 in <module>
"""
SYNTAX = f"""  File "{CODE}/data.py", line 58
    def load(:
             ^
SyntaxError: invalid syntax"""
MIXED = f"""step 3 loss 0.1
Traceback (most recent call last):
  File "{CODE}/train.py", line 40, in <module>
Downloading: 43%
    main()
WARNING something else
  File "{CODE}/data.py", line 58, in load
    check()
[W1128 12:00:00 socket.cpp:1] a warning
ValueError: bad"""


@pytest.mark.parametrize("text", [WORKER, POOL, SPAWN, RAY, GROUP, RICH, FATAL, SYNTAX, MIXED])
@pytest.mark.parametrize("prefix", ["", "[rank0]: ", "[default0]:", "[1,0]<stderr>:", "(Worker pid=81, ip=10.0.0.4) "])
def test_a_traceback_leads_to_the_users_own_line(text: str, prefix: str) -> None:
    if prefix and text is MIXED:
        text = "\n".join(line for line in text.splitlines() if line.startswith(("Tr", "  ", "Val")))
    found = verdict({0: "step 1\n" + "\n".join(prefix + line for line in text.splitlines())})

    assert (found.rank, found.file, found.line) == (0, "data.py", 58)


@pytest.mark.parametrize("text", [WORKER, SPAWN, RAY])
@pytest.mark.parametrize(
    "label", ["2026-11-28T10:00:0{}.123456Z ", "worker-{} | ", "[2026-11-28 10:00:0{},123][__main__] "]
)
def test_what_a_collector_of_logs_has_put_before_each_line_is_taken_away(text: str, label: str) -> None:
    lines = ["step 1", *text.splitlines()]
    found = verdict({0: raised(LOST), 1: "\n".join(label.format(at % 10) + line for at, line in enumerate(lines))})

    assert (found.rank, found.file, found.line) == (1, "data.py", 58)


def test_a_traceback_that_a_logger_has_labelled_an_error_is_not_certain() -> None:
    text = "\n".join(
        f"[2026-11-28 10:00:00,1][__main__][ERROR] - {line}" for line in raised("KeyError: 'x'").splitlines()
    )
    found = verdict({0: raised(LOST), 1: text})

    assert (found.rank, found.exception, found.certainty) == (1, "KeyError", "likely")


def test_without_the_end_of_a_process_a_traceback_before_more_work_is_not_certain() -> None:
    text = f"{raised('KeyError: 1')}\ntrying again\nepoch 2 done"

    assert verdict({0: text}).certainty == "likely"
    assert verdict({0: text}, {0: Ended(1)}).certainty == "certain", "what was printed before may wait in a buffer"
    assert verdict({0: raised("KeyError: 1")}).certainty == "certain"


GRAPH = """\
Traceback (most recent call last):
  File "/mnt/azureml/cr/j/0a1b/exe/wd/train.py", line 22, in <module>
    model.fit(ds, epochs=3)
  File "/opt/conda/lib/python3.10/site-packages/keras/src/utils/traceback_utils.py", line 122, in error_handler
    raise e.with_traceback(filtered_tb) from None
tensorflow.python.framework.errors_impl.InvalidArgumentError: Graph execution error:

Detected at node 'model/dense/MatMul' defined at (most recent call last):
    File "/mnt/azureml/cr/j/0a1b/exe/wd/train.py", line 22, in <module>
      model.fit(ds, epochs=3)
    File "/opt/conda/lib/python3.10/site-packages/keras/layers/core/dense.py", line 241, in call
      outputs = tf.matmul(a=inputs, b=self.kernel)
Node: 'model/dense/MatMul'
Matrix size-incompatible: In[0]: [32,10], In[1]: [12,5]
\t [[{{node model/dense/MatMul}}]] [Op:__inference_train_function_1]
"""


def test_the_reason_of_a_graph_of_tensorflow_is_its_message() -> None:
    """Where an operation was made looks like a traceback, and the name of its node like an exception."""
    found = verdict({0: GRAPH})

    assert (found.kind, found.exception, found.file, found.line) == (
        "shape-mismatch",
        "InvalidArgumentError",
        "train.py",
        22,
    )
    assert found.message == "Matrix size-incompatible: In[0]: [32,10], In[1]: [12,5]"


def test_the_reason_of_a_graph_in_no_table_is_told_too() -> None:
    found = verdict({0: GRAPH.replace("Matrix size-incompatible: In[0]: [32,10], In[1]: [12,5]", "indices[3] = 9")})

    assert (found.kind, found.exception, found.message) == ("user-code", "InvalidArgumentError", "indices[3] = 9")


def test_the_rank_that_called_abort_is_named_by_open_mpi() -> None:
    said = (
        "MPI_ABORT was invoked on rank 3 in communicator MPI_COMM_WORLD\n  Proc: [[1,1],3]\n  Errorcode: 7\n",
        "MPI_ABORT was invoked on rank 3 in communicator MPI_COMM_WORLD\nwith errorcode 7.\n",
    )
    for text in said:
        found = verdict({0: "step 1\n" + text})
        assert (found.kind, found.rank, found.certainty) == ("exit-code", 3, "likely")


def test_lines_of_all_ranks_in_one_log_are_told_apart() -> None:
    lines = [f"[rank{rank}]: {line}" for rank in range(3) for line in raised(LOST).splitlines()]
    lines[4:4] = [f"[rank3]: {line}" for line in raised("KeyError: 'x'", "a.py", 7).splitlines()]
    found = judge(Known([log(0, "\n".join(lines), "user_logs/std_log.txt")]))

    assert found
    assert (found.rank, found.file, found.followers) == (3, "a.py", [0, 1, 2])


def test_a_rank_on_its_node_is_not_taken_for_one_in_the_world() -> None:
    text = "[default0]:step 1\n" + "\n".join(f"[default3]:{line}" for line in raised("KeyError: 'x'").splitlines())
    found = verdict({0: text})

    assert (found.rank, found.exception) == (None, "KeyError")
    assert found.certainty != "certain"


def test_a_launcher_in_a_log_says_whose_traceback_is_in_it() -> None:
    told = "Root Cause (first observed failure):\n[0]:\n  rank      : 5 (local_rank: 1)\n  exitcode  : 1 (pid: 7)"
    found = verdict({0: f"step 1\n{raised(LOST)}", 1: f"{raised('ValueError: bad')}\n{told}"})

    assert (found.rank, found.exception, found.certainty) == (5, "ValueError", "likely")


# --- secrets


def test_secrets_are_told_by_the_names_of_their_variables() -> None:
    secret = {
        "HF_TOKEN": "words-of-mine",
        "STORAGE_KEY": "abcdef123",
        "DB_PASSWORD": "hunter22",
        "AZURE_SAS": "sv=20&x",
    }
    plain = {
        "TOKENIZERS_PARALLELISM": "false",
        "MAX_TOKENS": "1000000",
        "TOKENIZER_NAME": "bert-base-uncased",
        "tokeniser": "words",
        "TOKEN_URL": "https://a.b/c",
        "MONKEY": "banana",
    }

    assert secret_values(secret | plain) == list(secret.values())


@pytest.mark.parametrize(
    "text",
    [
        "GET https://acct.blob.core.windows.net/c/b?sv=2024&sig=SECRETSECRET1234%3D failed",
        "postgresql://bob:SECRETSECRET1234@db/x",
        "AccountKey=SECRETSECRET1234;EndpointSuffix=core.windows.net",
        "{'password': 'SECRETSECRET1234'}",
        "--token SECRETSECRET1234",
        "Authorization: Bearer SECRETSECRET1234",
        "WANDB_API_KEY=SECRETSECRET1234",
        "hf_SECRETSECRET1234",
        "eyJSECRETSECRET1234.eyJSECRETSECRET1234.x",
        "the value SECRETSECRET1234 is wrong",
    ],
)
def test_no_secret_is_shown(text: str) -> None:
    shown = verdict({0: raised(f"ValueError: {text}", source=text)}, secrets=["SECRETSECRET1234"])

    assert "SECRETSECRET1234" not in json.dumps(shown.to_dict())
    assert "SECRET" not in hide(text) or text.startswith("the value")


@pytest.mark.parametrize(
    "text", ["KeyError: 'tokens'", "num_tokens: 4096", "step 3: loss 0.25", "sort_keys=True", "token 5 of 10"]
)
def test_what_is_no_secret_is_shown(text: str) -> None:
    assert hide(text) == text


# --- folders and zips


def azure_folder(folder: Path, texts: Mapping[int, str], digits: int = 1, below: str = "user_logs") -> Path:
    logs = folder / below
    logs.mkdir(parents=True)
    for rank, text in texts.items():
        (logs / f"std_log_process_{rank:0{digits}}.txt").write_text(text)
    return folder


def why(path: str | Path, *options: str) -> Any:
    return json.loads(call("why", path, "--json", *options).stdout)


def verdict_in(path: Path) -> Verdict:
    """What `why` says of a folder or a zip, without starting it."""
    read = read_logs(path)
    found = judge_with(read.known, read.dumps)
    assert found is not None
    return found


def test_why_reads_a_folder_and_a_zip_of_azure_logs(tmp_path: Path) -> None:
    folder = azure_folder(
        tmp_path / "run", {r: raised(LOST) for r in range(11)} | {7: raised("KeyError: 'x'")}, digits=2
    )
    with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for one in folder.rglob("*.txt"):
            file.write(one, f"quickstart_1/{one.relative_to(folder)}")

    of_folder, of_zip = why(folder), why(tmp_path / "all.zip")

    assert (of_folder["name"], of_folder["status"]) == ("run", "Unknown")
    assert of_folder["verdict"]["rank"] == 7
    assert of_folder["verdict"]["evidence"][0]["log"] == "user_logs/std_log_process_07.txt"
    assert of_zip["verdict"] == of_folder["verdict"]


def test_why_shows_a_card_of_eighty_columns(tmp_path: Path) -> None:
    texts = {0: raised("ValueError: " + "a long message with many words " * 12), 1: raised(LOST)}
    done = call("why", azure_folder(tmp_path / "run", texts))

    assert done.returncode == 0
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "train.py:12" in done.stdout
    assert "user_logs/std_log_process_0.txt:4" in done.stdout


def test_the_last_attempt_counts(tmp_path: Path) -> None:
    azure_folder(tmp_path, {0: raised("KeyError: 'first'")})
    azure_folder(tmp_path, {0: raised("KeyError: 'second'")}, below="user_logs/retry_001")
    azure_folder(tmp_path, {0: raised("KeyError: 'third'")}, below="user_logs/retry_010")

    assert verdict_in(tmp_path).message == "'third'"


def test_why_reads_the_folder_of_the_logs_itself(tmp_path: Path) -> None:
    folder = azure_folder(tmp_path / "mine", {0: raised(LOST), 1: raised("KeyError: 'x'")}, below="logs/user_logs")

    assert verdict_in(folder / "logs" / "user_logs").rank == 1
    assert verdict_in(folder).evidence[0].log == "user_logs/std_log_process_1.txt"


def test_a_zip_may_have_backslashes(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "windows.zip", "w") as file:
        file.writestr("run\\user_logs\\std_log_process_1.txt", raised("KeyError: 'x'"))

    assert verdict_in(tmp_path / "windows.zip").rank == 1


def test_tensorflow_logs_have_workers_first(tmp_path: Path) -> None:
    logs = tmp_path / "user_logs"
    logs.mkdir()
    for node, role in ((0, "worker"), (1, "worker"), (0, "ps")):
        (logs / f"std_log_node_0{node}_{role}.txt").write_text("up\n")
    (logs / "std_log_node_00_ps.txt").write_text(raised("KeyError: 'x'"))
    found = verdict_in(tmp_path)

    assert (found.rank, found.node) == (2, 0)


def test_a_long_log_is_read_in_little_memory_and_keeps_its_line_numbers(tmp_path: Path) -> None:
    folder = azure_folder(tmp_path, {})
    with open(folder / "user_logs" / "std_log_process_0.txt", "w") as file:
        for number in range(600_000):
            file.write(f"step {number} loss 0.12345 and so on, as training goes\n")
        file.write(raised("KeyError: 'x'"))
    tracemalloc.start()
    found = judge(read_logs(folder).known)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert found
    assert found.evidence[0].line == 600_004
    assert peak < 8_000_000


def test_hostile_folders_and_zips_do_no_harm(tmp_path: Path) -> None:
    folder = azure_folder(tmp_path / "run", {0: raised("KeyError: 'x'")})
    os.mkfifo(folder / "user_logs" / "std_log_process_1.txt")
    (folder / "user_logs" / "std_log_process_2.txt").symlink_to("/etc/hostname")
    (folder / "user_logs" / "std_log_process_3.txt").write_bytes(bytes(range(256)) * 50)
    (folder / f"user_logs/std_log_process_{'9' * 40}.txt").write_text("x")
    (folder / "details.json").write_text("[" * 100_000)
    with zipfile.ZipFile(tmp_path / "bad.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("../../user_logs/std_log_process_0.txt", raised("KeyError: 'x'"))
        file.writestr("user_logs/std_log_process_1.txt", b"\0" * 50_000_000)
    before = set(tmp_path.rglob("*"))

    assert verdict_in(folder).message == "'x'"
    assert verdict_in(tmp_path / "bad.zip").message == "'x'"
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["details.json", "run-error.json", "service/job.json"])
def test_what_the_service_said_may_be_beside_the_logs(tmp_path: Path, name: str) -> None:
    said = {"error": {"code": "UserError", "message": "x", "innerError": {"code": "ImageBuildFailure"}}}
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(json.dumps(said))
    known = read_logs(tmp_path).known

    assert known.said
    assert known.said.codes == ["UserError", "ImageBuildFailure"]
    assert not known.here


def test_logs_that_only_lie_beside_a_run_are_not_its(tmp_path: Path) -> None:
    azure_folder(tmp_path, {0: raised("KeyError: 'x'")})
    for name in ("notes/deep/below/a.txt", "requirements.txt", "data/cgroup/memory.events", "train.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("oom_kill 0\n")
    logs = [log.name for log in read_logs(tmp_path).known.logs]

    assert logs == ["user_logs/std_log_process_0.txt", "requirements.txt", "cgroup/memory.events"]


def test_lines_in_utf_16_and_a_last_one_without_an_end_are_read(tmp_path: Path) -> None:
    azure_folder(tmp_path, {})
    texts = {0: "\ufeffa\nb", 1: "a\nb\n", 2: "a\r\nb\n"}
    for rank, text in texts.items():
        encoding = "utf-16" if rank == 1 else "utf-8"
        (tmp_path / f"user_logs/std_log_process_{rank}.txt").write_bytes(text.encode(encoding))
    logs = [[tuple(line) for line in log.lines] for log in read_logs(tmp_path).known.logs]

    assert logs == [[(1, "a"), (2, "b")], [(1, "a"), (2, "b")], [(1, "a\r"), (2, "b")]]


def test_a_damaged_zip_is_one_clear_line(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("user_logs/std_log_process_0.txt", raised("KeyError: 'x'") * 100)
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[60:120] = b"\xff" * 60
    (tmp_path / "a.zip").write_bytes(data)
    done = call("why", tmp_path / "a.zip")

    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 2)


def test_a_folder_without_logs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as refused:
        read_logs(tmp_path)

    assert "std_log_process_0.txt" in (refused.value.hint or "")


def test_what_is_neither_run_nor_folder_is_refused(tmp_path: Path) -> None:
    done = call("why", tmp_path / "gone.zip")

    assert done.returncode == 2
    assert "no folder or zip" in done.stderr


@pytest.mark.parametrize("content", [b"", b"PK\3\4" + b"x" * 100, b"plain text"])
def test_a_file_that_is_no_zip_is_said_to_be_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "logs.zip").write_bytes(content)

    done = call("why", tmp_path / "logs.zip")

    assert done.returncode == 2
    assert "logs.zip' is neither a folder nor a readable zip" in done.stderr


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("logs.tar.gz", "unpack it, and give the folder"),
        ("std_log_process_0.txt", "give the folder that has all logs of the run: ."),
    ],
)
def test_a_file_that_is_no_zip_says_what_to_give(name: str, hint: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("text")

    done = call("why", name, cwd=tmp_path)

    assert done.returncode == 2
    assert f"error: {name!r} is neither a folder nor a readable zip\nhint: {hint}" in done.stderr


def test_packed_logs_are_to_be_unpacked(tmp_path: Path) -> None:
    (tmp_path / "std_log_process_0.txt.gz").write_bytes(b"\x1f\x8b")

    with pytest.raises(NotFound) as failed:
        read_logs(tmp_path)

    assert failed.value.hint == "unpack its .gz files first"


# --- logs of several runs


def written(folder: Path, **texts: str) -> Path:
    """A folder with a log of rank 0 below each of these folders."""
    for name, text in texts.items():
        log_of_one = folder / name / "user_logs" / "std_log_process_0.txt"
        log_of_one.parent.mkdir(parents=True)
        log_of_one.write_text(text)
    return folder


def test_logs_of_several_runs_are_refused(tmp_path: Path) -> None:
    folder = written(tmp_path / "runs", a=raised("KeyError: 1") + "\n", b="step 1\n")

    with pytest.raises(DistError, match="'runs' has the logs of several runs: 'a' and 'b'") as failed:
        read_logs(folder)

    assert failed.value.hint == "give the folder of one of them"


def test_several_runs_of_this_machine_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps({"name": name, "status": "Completed", "processes": []}))

    with pytest.raises(DistError, match="has the logs of several runs: 'a' and 'b'"):
        read_logs(tmp_path)

    assert read_logs(tmp_path / "b").name == "b"


def test_an_older_copy_deeper_in_the_folder_is_not_read(tmp_path: Path) -> None:
    written(tmp_path, **{".": "step 1\n", "outputs/old": raised("KeyError: 1") + "\n"})

    assert [log.name for log in read_logs(tmp_path).known.logs] == ["user_logs/std_log_process_0.txt"]


def test_logs_of_each_node_in_a_folder_of_its_own_are_one_run(tmp_path: Path) -> None:
    for rank in (0, 1):
        folder = tmp_path / f"node_{rank}" / "user_logs"
        folder.mkdir(parents=True)
        (folder / f"std_log_process_{rank}.txt").write_text("step 1\n")

    assert [log.rank for log in read_logs(tmp_path).known.logs] == [0, 1]


# --- runs here


def test_why_tells_of_a_run_here(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    script = "import os, time\nif os.environ['RANK'] == '1':\n    {}['labels']\ntime.sleep(60)\n"
    (tmp_path / "src" / "crash.py").write_text(script)
    run = here("direct").submit(pytorch("python crash.py", processes=2, code=str(tmp_path / "src")))
    with pytest.raises(RunFailed) as failed:
        run.wait(timeout=60)
    found = why(run.folder)

    assert found["verdict"] == failed.value.verdict.to_dict() == run.describe()["verdict"]
    assert f"why      rank 1: KeyError: 'labels'\n  where    {tmp_path / 'src' / 'crash.py'}:3\n" in str(run)

    assert (found["status"], found["name"]) == ("Failed", run.name)
    assert found["verdict"]["rank"] == 1
    assert (found["verdict"]["kind"], found["verdict"]["certainty"]) == ("user-code", "certain")
    assert (found["verdict"]["file"], found["verdict"]["line"]) == ("crash.py", 3)


def test_an_unknown_error_of_reading_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"PK\x05\x06" + b"\0" * 18)

    with pytest.raises(DistError):
        read_logs(tmp_path / "x.zip")


# --- records of structured logs, and what is not one

FAILED = f"""Traceback (most recent call last):
  File "{CODE}/train.py", line 31, in <module>
    main()
  File "{CODE}/data.py", line 12, in load
    return table["labels"]
           ~~~~~^^^^^^^^^^
KeyError: 'labels'"""
FRAME = {"filename": f"{CODE}/data.py", "lineno": 12, "name": "load"}
STRUCTURED = {
    "exc_info": json.dumps({"level": "error", "msg": "failed", "exc_info": FAILED}),
    "the message itself": json.dumps({"severity": "ERROR", "message": f"It's over\n{FAILED}"}),
    "a nested field": json.dumps({"log.level": "error", "error": {"type": "KeyError", "stack_trace": FAILED}}),
    "a time before it": "2026-11-29 10:00:00 " + json.dumps({"level": "error", "exception": FAILED}),
    "a list of lines": json.dumps({"level": "error", "traceback": FAILED.splitlines()}),
    "frames": json.dumps(
        {"level": "error", "exception": [{"exc_type": "KeyError", "exc_value": "'labels'", "frames": [FRAME]}]}
    ),
    "logfmt": f'time=2026-11-29T10:00:00Z level=error msg="failed" exc_info={json.dumps(FAILED)}',
    "repr": f"ERROR worker failed: {FAILED!r}",
    "a record in a record": json.dumps({"level": "error", "message": json.dumps({"exc_info": FAILED})}),
    "a record that was cut": json.dumps({"level": "error", "exc_info": FAILED, "more": "x" * 40})[:-20],
}


@pytest.mark.parametrize("how", STRUCTURED)
def test_a_traceback_in_a_record_of_a_log_leads_to_the_users_own_line(how: str) -> None:
    found = verdict({0: "step 1", 1: f"step 1\n{STRUCTURED[how]}"}, {0: Ended(signal=15, stopped=True), 1: Ended(1)})

    assert (found.rank, found.exception, found.file, found.line) == (1, "KeyError", "data.py", 12)
    # A logger has caught it, so that the script may have continued.
    assert found.certainty == "likely"
    assert found.evidence[0].line == 2


@pytest.mark.parametrize(
    "record",
    [
        lambda line: {"log": f"{line}\n", "stream": "stderr", "time": "2026-11-29T10:00:00.1Z"},
        lambda line: {"kubernetes": {"pod_name": "train-1"}, "log": line, "stream": "stderr"},
        lambda line: {"level": "ERROR", "message": line},
    ],
)
def test_each_line_of_a_process_may_be_a_record_of_a_collector(record: Any) -> None:
    lines = ["step 1", *FAILED.splitlines()]
    found = verdict({1: "\n".join(json.dumps(record(line)) for line in lines)}, {1: Ended(1)})

    assert (found.exception, found.file, found.line) == ("KeyError", "data.py", 12)
    assert found.evidence[0].line == len(lines)


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"text": FAILED, "source": "a data set of programs"}),
        f"    raise ValueError({FAILED!r})",
        json.dumps({"frames": [FRAME], "level": "info"}),
        '{"level": "error", "exc_info": "Traceback (most recent call last)"}',
        '{"frames": ' * 100_000,
    ],
)
def test_a_record_of_something_else_is_no_traceback(text: str) -> None:
    found = verdict({0: f"step 1\n{text}"}, {0: Ended(7)})

    assert (found.kind, found.exception) == ("exit-code", None)


def test_a_record_belongs_to_the_rank_that_its_line_names() -> None:
    text = f"[1,0]<stdout>: step 1\n[1,1]<stderr>:{STRUCTURED['exc_info']}"
    found = judge(Known([log(None, text, "std_log.txt")]))

    assert found
    assert (found.rank, found.exception, found.file) == (1, "KeyError", "data.py")


@pytest.mark.parametrize("level", ["error", "warning"])
def test_a_traceback_in_a_record_is_no_cause_if_another_rank_ended_without_a_word(level: str) -> None:
    handled = json.dumps({"level": level, "exc_info": FAILED})
    known = {0: Ended(1), 1: Ended(signal=9), 2: Ended(1)}
    found = verdict({0: f"{handled}\nstep 4\n{raised(LOST)}", 1: "step 4", 2: raised(LOST)}, known)

    assert (found.kind, found.rank) == ("killed", 1)


# --- tracebacks in boxes, columns and notebooks

RICH_COLUMN = f"""[11/30/26 06:33:33] ERROR    training failed                         train.py:32
                             ╭─ Traceback (most recent call last) ─╮
                             │ {CODE[:35]} │
                             │ {CODE[35:]}/data.py:                │
                             │ 12 in load                          │
                             │                                     │
                             │   11 │   try:                       │
                             │ ❱ 12 │   │   table["labels"]        │
                             ╰─────────────────────────────────────╯
                             KeyError: 'labels'"""
RICH_PLAIN = f"""[11/30/26 06:33:36] ERROR    training failed                         train.py:32
                             Traceback (most recent call last):
                               File
                             "{CODE[:35]}
                             {CODE[35:]}/data.py",
                              line 12, in load
                                 table["labels"]
                             KeyError: 'labels'"""
RICH_WRAPPED = f"""╭──────────────── Traceback (most recent call last) ────────────────╮
│ {CODE}/data.py:12 in │
│ load                                                              │
│                                                                   │
│ ❱ 12 │   table["labels"]                                          │
╰───────────────────────────────────────────────────────────────────╯
KeyError: 'labels'"""
NOTEBOOK = f"""---------------------------------------------------------------------------
KeyError                                  Traceback (most recent call last)
File {CODE}/train.py:31
     29 main = load
---> 31 main()

File {CODE}/data.py:12, in load(table)
     10 def load(table):
---> 12     return table["labels"]

KeyError: 'labels'"""


@pytest.mark.parametrize("text", [RICH_COLUMN, RICH_PLAIN, RICH_WRAPPED, NOTEBOOK])
def test_a_place_is_found_in_a_box_a_column_and_a_notebook(text: str) -> None:
    found = verdict({1: f"step 1 loss 0.5\n{text}"}, {1: Ended(1)})

    assert (found.rank, found.exception, found.message) == (1, "KeyError", "'labels'")
    assert (found.file, found.line) == ("data.py", 12)


def test_a_note_below_an_exception_does_not_say_what_it_is() -> None:
    noted = raised("KeyError: 'labels'\nRuntimeError: Connection closed by peer is not what happened")
    found = verdict({0: raised(LOST), 1: noted}, {0: Ended(1), 1: Ended(1)})

    assert (found.kind, found.rank, found.exception) == ("user-code", 1, "KeyError")


def test_a_traceback_that_the_script_has_printed_of_another_program_is_not_certain() -> None:
    sample = 'Traceback (most recent call last):\n  File "solution.py", line 4, in <module>\n    main()\nIndexError: 4'

    assert verdict({0: sample}, {0: Ended(1)}).certainty == "likely"
    assert verdict({0: sample}, {0: Ended(1)}, command="python -m mpi4py solution.py").certainty == "certain"


def test_steps_right_below_an_exception_are_no_part_of_its_message() -> None:
    text = raised("OSError: [Errno 2] No such file") + "\nstep 1 loss 0.3\nstep 2 loss 0.2\nstep 3 loss 0.1"

    assert [one.end for one in tracebacks(text.splitlines())] == [4]


# --- messages that are longer than what is read of the end of a log

LINES = "\n".join(f"weight {number} = [0.1, 0.2]" for number in range(60_000))
STEPS = "\n".join(f"step {number} loss 0.1234" for number in range(40_000))


@pytest.mark.parametrize("before", ["step 1", STEPS])
@pytest.mark.parametrize("message", ["x" * 3_000_000, LINES])
def test_an_exception_with_a_very_long_message_is_named(message: str, before: str, tmp_path: Path) -> None:
    folder = azure_folder(tmp_path, {1: f"{before}\n{raised(f'ValueError: bad state {message}')}", 0: "step 1"})
    known = read_logs(folder).known
    tracemalloc.start()
    found = judge(Known(list(read_logs(folder).known.logs), {1: Ended(1)}, known.said))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert found
    assert (found.rank, found.exception, found.file, found.line) == (1, "ValueError", "train.py", 12)
    assert found.evidence[0].line == before.count("\n") + 5
    assert peak < 12_000_000


def test_an_exception_far_above_the_end_of_a_log_is_no_cause_if_its_process_continued(tmp_path: Path) -> None:
    handled = raised(f"ValueError: bad state {'x' * 300_000}")
    folder = azure_folder(tmp_path, {0: "step 1", 1: f"{STEPS}\n{handled}\n{STEPS}"})
    logs = list(read_logs(folder).known.logs)
    found = judge(Known(logs, {1: Ended(signal=9)}))

    assert found
    assert (found.kind, found.rank) == ("killed", 1)
