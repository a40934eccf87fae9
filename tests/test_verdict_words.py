"""What exceptions of Python and its libraries mean, whose words could mean several things; and what to do then."""

from __future__ import annotations

from pathlib import Path

import pytest
from judging import CODE, LOST, log, raised, verdict
from needs import needs
from running import pytorch, run_here
from submitting import code_in

from azml_dist.status import RunStatus
from azml_dist.verdict.hidden import hide
from azml_dist.verdict.judge import judge
from azml_dist.verdict.known import Ended, Known
from azml_dist.verdict.verdict import Verdict

PACKAGES = "/opt/conda/lib/python3.11/site-packages"


def through(error: str, *paths: str) -> str:
    """A traceback from the user's file into files of libraries."""
    head, _, end = raised("").rpartition("\n")
    frames = "".join(f'\n  File "{path}", line 7, in call\n    return one()' for path in paths)
    return f"{head}{frames}{end}\n{error}"


# --- connections and ends of files that are not those of peers

RESET = "ConnectionResetError: [Errno 104] Connection reset by peer"


@pytest.mark.parametrize(
    "path",
    ["urllib3/connectionpool.py", "requests/adapters.py", "aiohttp/client.py", "azure/core/pipeline/_base.py"],
)
def test_a_server_that_hangs_up_is_no_lost_peer(path: str) -> None:
    found = verdict({0: raised(LOST), 1: through(RESET, f"{PACKAGES}/{path}"), 2: raised(LOST)})

    assert (found.kind, found.certainty, found.rank, found.line) == ("data-access", "likely", 1, 12)
    assert found.followers == [0, 2]


def test_a_connection_that_the_script_itself_holds_is_one_to_a_peer() -> None:
    found = verdict({0: raised(RESET), 1: raised("KeyError: 'labels'")})

    assert (found.rank, found.exception, found.followers) == (1, "KeyError", [0])


def test_a_timeout_of_a_server_is_that_of_its_data() -> None:
    found = verdict({0: through("TimeoutError: timed out", "/usr/lib/python3.11/urllib/request.py")})

    assert (found.kind, found.certainty) == ("data-access", "likely")
    assert verdict({0: raised("TimeoutError: timed out")}).kind == "user-code"


@pytest.mark.parametrize("path", ["torch/serialization.py", "torch/_weights_only_unpickler.py"])
def test_an_empty_file_is_no_lost_peer(path: str) -> None:
    found = verdict({rank: through("EOFError", f"{PACKAGES}/{path}") for rank in range(2)})

    assert (found.kind, found.rank, found.ranks) == ("checkpoint-mismatch", 0, [0, 1])
    assert "incomplete" in (found.hint or "")


def test_an_end_of_a_pipe_is_a_lost_peer() -> None:
    found = verdict(
        {0: through("EOFError", "/usr/lib/python3.11/multiprocessing/connection.py"), 1: raised("KeyError: 1")}
    )

    assert (found.rank, found.followers) == (1, [0])


# --- whose frames


@pytest.mark.parametrize("path", ["pandas/_libs/index.pyx", "src/mpi4py/MPI.src/Comm.pyx", "pyarrow/error.pxi"])
def test_the_source_of_a_compiled_package_is_not_the_users_file(path: str) -> None:
    found = verdict({0: through("KeyError: 'labels'", f"{PACKAGES}/pandas/core/frame.py", path)})

    assert (found.kind, found.file, found.line) == ("user-code", "train.py", 12)


def test_a_compiled_file_in_the_code_folder_is_the_users() -> None:
    found = verdict({0: through("KeyError: 'labels'", f"{CODE}/fast/reader.pyx")}, code_roots=[f"{CODE}/"])

    assert found.file == "fast/reader.pyx"


# --- programs that a script starts


def test_the_traceback_of_a_program_that_the_script_started_is_the_cause() -> None:
    child = raised("json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0)", "prepare.py", 4)
    parent = raised(
        "subprocess.CalledProcessError: Command '['python', 'prepare.py']' returned non-zero exit status 1."
    )
    found = verdict({0: f"{child}\n{parent}"})

    assert (found.exception, found.file, found.line) == ("JSONDecodeError", "prepare.py", 4)


def test_a_traceback_that_was_logged_before_is_not_that_of_the_program() -> None:
    logged = f"ERROR:root:no cache\n{raised('KeyError: 1')}"
    parent = raised("subprocess.CalledProcessError: Command 'gunzip a' returned non-zero exit status 1.", line=20)
    found = verdict({0: f"{logged}\n{parent}"})

    assert (found.exception, found.line) == ("CalledProcessError", 20)
    assert "`error.stderr`" in (found.hint or "")


# --- hints


@pytest.mark.parametrize(
    ("error", "kind", "hint"),
    [
        (
            "_pickle.UnpicklingError: Weights only load failed. This file can still be loaded.\n"
            "\tWeightsUnpickler error: Unsupported global: GLOBAL argparse.Namespace was not an allowed global",
            "checkpoint-mismatch",
            "pass `weights_only=False`",
        ),
        (
            "_pickle.UnpicklingError: Weights only load failed. Re-running.\n\tUnsupported operand 118",
            "checkpoint-mismatch",
            "`git lfs pull`",
        ),
        (
            "_pickle.UnpicklingError: Weights only load failed. Re-running.\n\tUnsupported operand 60",
            "checkpoint-mismatch",
            "the file is incomplete",
        ),
        ("ImportError: attempted relative import with no known parent package", "user-code", "python -m PACKAGE"),
        (
            "ImportError: cannot import name 'x' from partially initialized module 'a' (most likely due to a circular"
            f" import) ({CODE}/a.py)",
            "user-code",
            "`a` is used while it is still being imported",
        ),
        (
            f"ImportError: cannot import name 'Random' from 'random' ({CODE}/random.py)",
            "user-code",
            "`random` is your file `random.py`, which has no `Random`",
        ),
        (
            f"ImportError: cannot import name 'x' from 'torch' ({PACKAGES}/torch/__init__.py)",
            "missing-module",
            "`torch` has no `x`: probably another version",
        ),
        ("AttributeError: module 'torch' has no attribute 'ones'", "user-code", "a file `torch.py` in your code"),
        ("AttributeError: module 'torch.cuda' has no attribute 'x'", "user-code", "another version than the code"),
        ("AttributeError: `np.float_` was removed in the NumPy 2.0 release.", "missing-module", "require `numpy<2`"),
        ("RuntimeError: context has already been set", "user-code", 'below `if __name__ == "__main__":`'),
        ("RuntimeError: Cannot re-initialize CUDA in forked subprocess.", "user-code", '="spawn"`'),
        ("AttributeError: Can't pickle local object 'main.<locals>.<lambda>'", "user-code", "no lambda or inner"),
        ("AttributeError: Can't get attribute 'Net' on <module '__main__' from 'x.py'>", "user-code", "to `Net`"),
        ("OSError: a/b is not a local folder and is not a valid model identifier", "missing-file", "a model `a/b`"),
        ("RuntimeError: Ninja is required to load C++ extensions", "missing-module", "add `ninja`"),
        ("zipfile.BadZipFile: File is not a zip file", "user-code", "cut short or of another type"),
        ("OSError: Unable to open file (file signature not found)", "user-code", "cut short or of another type"),
        ("EOFError: EOF when reading a line", "user-code", "pass the value as an argument"),
        ("RuntimeError: can't start new thread", "user-code", "`OMP_NUM_THREADS`"),
        ("OSError: [Errno 24] Too many open files: 'a.npy'", "user-code", "`ulimit -n`"),
        ("OSError: [Errno 27] File too large", "disk-full", "`ulimit -f`"),
        ("RuntimeError: Trying to resize storage that is not resizable", "shape-mismatch", "`collate_fn`"),
        (
            "RuntimeError: ProcessGroupGloo::allgather: invalid tensor size at index 0 (expected (3), got (2))",
            "shape-mismatch",
            "differ, (3) and (2)",
        ),
        ("IndexError: index out of range in self", "user-code", "`num_embeddings`"),
        ("IndexError: Target 5 is out of bounds.", "user-code", "the label 5 is not below the"),
        (
            "pydantic_core._pydantic_core.ValidationError: 2 validation errors for C\nlr\n  Input should be a valid"
            " number [type=float_parsing, input_value='abc', input_type=str]",
            "bad-arguments",
            "`lr`: Input should be a valid number",
        ),
        (
            "azure.core.exceptions.ServiceRequestError: HTTPSConnection(host='a', port=443): Failed to establish a new"
            " connection: [Errno 111] Connection refused",
            "data-access",
            "check that the nodes can reach it",
        ),
        (
            "huggingface_hub.errors.LocalEntryNotFoundError: We cannot find the requested files in the local cache."
            " Please check your connection and try again.",
            "data-access",
            "check that the nodes can reach it",
        ),
        ("subprocess.CalledProcessError: Command 'a' died with <Signals.SIGKILL: 9>.", "killed", "lack of memory"),
        ("subprocess.CalledProcessError: Command 'a' died with <Signals.SIGSEGV: 11>.", "crash", "crashed"),
    ],
)  # fmt: skip
def test_an_exception_is_of_its_kind_and_has_a_next_step(error: str, kind: str, hint: str) -> None:
    found = verdict({0: raised(error)})

    assert (found.kind, found.rank) == (kind, 0)
    assert hint in (found.hint or "")


@pytest.mark.parametrize(
    ("text", "kind", "hint"),
    [
        ("/usr/bin/bash: line 2: DATA_DIR: unbound variable", "bad-arguments", "uses `$DATA_DIR`, which is not set"),
        ("sh: 1: DATA: parameter not set", "bad-arguments", "uses `$DATA`, which is not set"),
        ("/usr/bin/bash: line 1: cd: src: No such file or directory", "missing-file", "`src` is relative to"),
        (
            "/x/python3: Error while finding module specification for 'pkg.train' (ModuleNotFoundError: No module named"
            " 'pkg')",
            "missing-module",
            "if `pkg` is your own code, check its name in the command",
        ),
        ("FATAL Flags parsing error: Unknown command line flag 'epoch'.", "bad-arguments", "Unknown command line flag"),
    ],
)  # fmt: skip
def test_a_line_is_of_its_kind_and_has_a_next_step(text: str, kind: str, hint: str) -> None:
    found = verdict({0: text})

    assert (found.kind, found.rank) == (kind, 0)
    assert hint in (found.hint or "")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("RuntimeError: \n        An attempt has been made to start", "An attempt has been made to start"),
        ("RuntimeError: config invalid:\n  - lr: must be > 0\n  - data: missing", "config invalid: - lr: must be > 0"),
        ("RuntimeError: one line", "one line"),
    ],
)
def test_a_message_that_begins_below_its_first_line_is_shown(error: str, message: str) -> None:
    assert verdict({0: raised(error)}).message == message


def test_only_the_odd_rank_is_named_where_collectives_differ() -> None:
    said = (
        "RuntimeError: Detected mismatch between collectives on ranks. Rank {} is running collective: {},"
        " but Rank {} is running collective: {}"
    )
    one, other = (
        f"CollectiveFingerPrint(SequenceNumber=0, OpType=ALLREDUCE, TensorShape=[{size}], TensorDtypes=Float)"
        for size in (5, 4)
    )
    texts = {0: said.format(0, one, 1, other), 1: said.format(1, other, 0, one), 2: said.format(2, other, 0, one)}
    found = verdict({rank: raised(text) for rank, text in texts.items()}, {rank: Ended(1) for rank in texts})

    assert (found.rank, found.ranks, found.followers) == (0, [0], [1, 2])
    assert found.summary.startswith("rank 0: RuntimeError")


def test_the_name_of_a_function_is_no_secret() -> None:
    text = "hf_hub_download('bert', 'config.json') npm_config_registry"

    assert hide(text) == text


def test_an_old_error_of_nccl_is_no_certain_cause() -> None:
    error = "RuntimeError: NCCL Error 3: internal error - please report this issue to the NCCL developers"
    found = verdict({0: raised(error), 1: raised("KeyError: 'labels'")})

    assert (found.rank, found.exception) == (1, "KeyError")
    assert verdict({0: raised(error)}).certainty != "certain"


# --- what was caught, and what ended without a word


def test_what_a_rank_writes_after_an_exception_that_it_had_logged_is_told() -> None:
    logged = f"ERROR:root:cannot parse a line\n{raised('ValueError: abc')}"
    found = verdict({0: f"{logged}\nthe data set is too small", 1: raised(LOST)}, {0: Ended(1), 1: Ended(1)}, here=True)
    alone = verdict({0: logged, 1: raised(LOST)}, {0: Ended(1), 1: Ended(1)}, here=True)

    assert (found.exception, found.certainty, found.rank) == ("ValueError", "likely", 0)
    assert found.hint == "the script may have caught this exception: its last line is `the data set is too small`"
    assert found.evidence[-1].text == "the data set is too small"
    assert alone.hint is None


MPIRUN = """\
prterun has exited due to process rank 1 with PID 20393 on node vm exiting
improperly. There are three reasons this could occur:
"""


@pytest.mark.parametrize(
    "text", [MPIRUN, MPIRUN.replace("vm exiting\n", "a\n").replace("improperly", "exiting improperly")]
)
def test_a_rank_that_leaves_mpi_without_finalize_is_named(text: str) -> None:
    stopped = Ended(signal=15, stopped=True)
    texts = [log(0, "step 1"), log(1, "step 1"), log(None, text, "user_logs/mpi_log.txt")]
    found = judge(Known(texts, {0: stopped, 1: Ended(0)}, status=RunStatus.FAILED, here=True))

    assert found
    assert (found.kind, found.certainty, found.rank, found.followers) == ("collective-mismatch", "likely", 1, [0])
    assert "`MPI_Finalize`" in found.summary


# --- exit codes


@pytest.mark.parametrize(("code", "name"), [(143, "SIGTERM"), (130, "SIGINT"), (141, "SIGPIPE")])
def test_an_exit_code_that_stands_for_a_signal_is_said_to(code: int, name: str) -> None:
    found = verdict({0: "step 1", 1: raised(LOST)}, {0: Ended(code), 1: Ended(1)}, here=True)

    assert (found.kind, found.certainty, found.rank) == ("killed", "likely", 0)
    assert found.message == f"exit code {code}, which stands for {name}"


def test_the_code_of_timeout_is_explained_where_the_command_has_it() -> None:
    found = verdict({0: "step 1"}, {0: Ended(124)}, command="timeout 60 python train.py", here=True)
    other = verdict({0: "step 1"}, {0: Ended(124)}, command="python train.py", here=True)

    assert "`timeout` in the command" in (found.hint or "")
    assert "`timeout`" not in (other.hint or "")


# --- here


def of_a_run(folder: Path, script: str) -> Verdict:
    """Of a script on two ranks."""
    code = code_in(folder / "src", {"train.py": script})
    job = pytorch("python train.py", processes=2, code=str(code), outputs={})
    found = run_here(job, root=folder / "runs", launcher="direct").verdict()
    assert found
    return found


@pytest.mark.slow
def test_a_server_that_resets_a_connection_here(tmp_path: Path) -> None:
    found = of_a_run(tmp_path, """\
import os, socket, struct, threading, time, urllib.request
if os.environ["RANK"] == "0":
    time.sleep(60)
server = socket.create_server(("127.0.0.1", 0))
def answer():
    connection, _ = server.accept()
    connection.recv(1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
threading.Thread(target=answer).start()
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
opener.open(f"http://127.0.0.1:{server.getsockname()[1]}/shard.tar")
""")  # fmt: skip

    assert (found.kind, found.rank, found.file, found.line) == ("data-access", 1, "train.py", 12)


@needs("torch")
def test_sizes_that_differ_end_ranks_by_an_abort_of_gloo_that_is_no_crash(tmp_path: Path) -> None:
    found = of_a_run(tmp_path, """\
import torch, torch.distributed as dist
dist.init_process_group("gloo")
x = torch.ones(5 - min(1, dist.get_rank()))
for _ in range(5):
    dist.all_reduce(x)
""")  # fmt: skip

    assert (found.kind, found.rank) == ("collective-mismatch", None)
    assert (found.message or "").startswith("op.preamble.length <= op.nbytes")
