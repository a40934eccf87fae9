"""What the errors of particular libraries mean: their kind, how certain that is, and the next step with its values."""

from __future__ import annotations

import json
import sqlite3
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from judging import LOST, in_a_library, raised, verdict
from needs import needs

HUB = "https://huggingface.co/meta-llama/Llama-2-7b-hf"
NCCL = "torch.distributed.DistBackendError: NCCL error in: NCCLUtils.cpp:94, invalid usage, NCCL version 2.27.5"
JSON = "json.decoder.JSONDecodeError: "

ERRORS = [
    # --- texts
    (f"{JSON}Expecting value: line 1 column 1 (char 0)", "user-code", "likely", "the text is empty or no JSON"),
    (f"{JSON}Extra data: line 2 column 1 (char 9)", "user-code", "likely", "before line 2, column 1: a file with one"),
    (f"{JSON}Expecting ',' delimiter: line 3 column 7 (char 9)", "user-code", "likely", "no JSON at line 3, column 7"),
    (
        'yaml.scanner.ScannerError: while scanning a simple key\n  in "conf/train.yaml", line 7, column 1\n'
        "could not find expected ':'\n  in \"conf/train.yaml\", line 8, column 1",
        "user-code",
        "likely",
        "`conf/train.yaml` cannot be read at line 8, column 1: could not find expected ':'",
    ),
    (
        "yaml.constructor.ConstructorError: could not determine a constructor for the tag"
        " 'tag:yaml.org,2002:python/object:argparse.Namespace'\n  in \"<unicode string>\", line 1, column 4:",
        "user-code",
        "likely",
        "the YAML contains objects of Python",
    ),
    (
        'ruamel.yaml.constructor.DuplicateKeyError: while constructing a mapping\n  in "a.yml", line 1, column 1\n'
        'found duplicate key "lr" with value "0.1"\n  in "a.yml", line 4, column 1',
        "user-code",
        "likely",
        '`a.yml` cannot be read at line 4, column 1: found duplicate key "lr"',
    ),
    # --- servers and logins
    (
        f"requests.exceptions.HTTPError: 401 Client Error: Unauthorized for url: {HUB}/resolve/main/config.json",
        "data-access",
        "certain",
        "`meta-llama/Llama-2-7b-hf` requires a login",
    ),
    (
        f"OSError: You are trying to access a gated repo.\nMake sure to have access to it at {HUB}.\n401 Client Error.",
        "data-access",
        "certain",
        "`meta-llama/Llama-2-7b-hf` requires a login",
    ),
    (
        "requests.exceptions.HTTPError: 401 Client Error: Unauthorized for url: https://huggingface.co/api/datasets/me/own",
        "data-access",
        "certain",
        "`me/own` requires a login",
    ),
    (
        "requests.exceptions.HTTPError: 403 Client Error: Forbidden for url: https://huggingface.co/gpt2/resolve/main/a",
        "data-access",
        "certain",
        "`gpt2` requires a login",
    ),
    ("requests.exceptions.JSONDecodeError: Expecting value: line 1 column 1 (char 0)", "user-code", "likely", "server"),
    (
        "huggingface_hub.errors.OfflineModeIsEnabled: Cannot reach https://huggingface.co: offline mode is enabled.",
        "data-access",
        "certain",
        "`HF_HUB_OFFLINE` or",
    ),
    (
        "huggingface_hub.errors.HFValidationError: Repo id must be in the form 'repo_name' or 'namespace/repo_name':"
        " '/mnt/models/llama'. Use `repo_type` argument if needed.",
        "missing-file",
        "likely",
        "there is no folder `/mnt/models/llama`",
    ),
    (
        "wandb.errors.errors.UsageError: api_key not configured (no-tty). call wandb.login(key=[your_api_key])",
        "data-access",
        "certain",
        "pass `WANDB_API_KEY` to the job as a secret, or set `WANDB_MODE=offline`",
    ),
    ("ValueError: Comet.ml requires an API key.", "data-access", "certain", "`COMET_API_KEY`"),
    (
        "wandb.errors.errors.CommError: Run initialization has timed out after 90.0 sec.",
        "data-access",
        "likely",
        "wandb's server could not be used",
    ),
    (
        "mlflow.exceptions.MlflowException: API request to endpoint /api/2.0/mlflow/runs/create failed with error code"
        " 401 != 200.",
        "data-access",
        "certain",
        "refused the request (401)",
    ),
    (
        "ssl.SSLCertVerificationError: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: unable to get local"
        " issuer certificate (_ssl.c:1007)",
        "data-access",
        "likely",
        "(certificate verify failed: unable to get local issuer certificate)",
    ),
    # --- versions of packages, libraries and drivers
    (
        "RuntimeError: The NVIDIA driver on your system is too old (found version 11040). Please update it",
        "missing-module",
        "likely",
        "supports CUDA up to 11.4",
    ),
    (
        "RuntimeError: error from cudaGetDeviceCount(). Error 803: system has unsupported display driver / cuda"
        " driver combination",
        "missing-module",
        "likely",
        "`cuda-compat`",
    ),
    (
        "RuntimeError: Unexpected error from cudaGetDeviceCount(). Error 802: system not yet initialized",
        "gpu-hardware",
        "likely",
        "fabric manager",
    ),
    (
        "RuntimeError: CUDA unknown error - this may be due to an incorrectly set up environment, e.g. changing env",
        "gpu-hardware",
        "likely",
        "changed `CUDA_VISIBLE_DEVICES`",
    ),
    (
        "RuntimeError: cuDNN version incompatibility: PyTorch was compiled  against (8, 9, 2) but found (8, 5, 0).",
        "missing-module",
        "likely",
        "do not go together",
    ),
    ("RuntimeError: Numpy is not available", "missing-module", "likely", "`numpy<2`"),
    ("ImportError: numpy.core.multiarray failed to import", "missing-module", "likely", "`numpy<2`"),
    ("ModuleNotFoundError: No module named 'numpy._core'", "missing-module", "likely", "`numpy<2`"),
    (
        "ImportError: Unable to find a usable engine; tried using: 'pyarrow', 'fastparquet'.\n - Missing optional"
        " dependency 'pyarrow'. pyarrow is required for parquet support.",
        "missing-module",
        "likely",
        "add `pyarrow` to the environment",
    ),
    (
        "ImportError: \nLlamaTokenizer requires the SentencePiece library but it was not found in your environment.",
        "missing-module",
        "likely",
        "add `sentencepiece` to the environment",
    ),
    (
        "ImportError: Using the `Trainer` requires `accelerate>=0.26.0`: Please run `pip install 'accelerate>=0.26.0'`",
        "missing-module",
        "likely",
        "add `accelerate` to the environment",
    ),
    (
        "Exception: data did not match any variant of untagged enum ModelWrapper at line 757443 column 3",
        "missing-module",
        "likely",
        "newer versions of transformers and tokenizers",
    ),
    (
        "ImportError: Extension horovod.torch has not been built: /x/_mpi_lib.so not found",
        "missing-module",
        "likely",
        "`HOROVOD_WITH_PYTORCH=1`",
    ),
    (
        "torch._inductor.exc.InductorError: InvalidCxxCompiler: No working C++ compiler found: (None, 'g++')",
        "missing-module",
        "likely",
        "needs a compiler",
    ),
    (
        "torch._inductor.exc.InductorError: CalledProcessError: Command '['/usr/bin/gcc', '/tmp/main.c']' returned"
        " non-zero exit status 1.",
        "missing-module",
        "likely",
        "`python3-dev`",
    ),
    (
        "torch._dynamo.exc.BackendCompilerFailed: backend='inductor' raised:\nRuntimeError: Found M60 which is too"
        " old to be supported by the triton GPU compiler",
        "user-code",
        "certain",
        "too old",
    ),
    ("RuntimeError: FlashAttention only supports Ampere GPUs or newer.", "user-code", "certain", "too old"),
    ("ValueError: Your setup doesn't support bf16/gpu.", "user-code", "likely", "`torch.cuda.is_available()`"),
    # --- values of torch and TensorFlow
    (
        "RuntimeError: Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!"
        " (when checking argument for argument mat1 in method wrapper_CUDA_addmm)",
        "user-code",
        "certain",
        "must be on one device",
    ),
    (
        "RuntimeError: Expected all tensors to be on the same device, but found two devices, cuda:2 and cuda:0!",
        "user-code",
        "certain",
        "tensors on cuda:2 and cuda:0 meet in one process",
    ),
    (
        "RuntimeError: Input type (torch.FloatTensor) and weight type (torch.cuda.FloatTensor) should be the same",
        "user-code",
        "certain",
        "must be on one device",
    ),
    ("RuntimeError: expected scalar type Half but found Float", "user-code", "certain", "types Half and Float meet"),
    ("RuntimeError: expected scalar type Long but found Float", "user-code", "certain", "`.long()`"),
    (
        "RuntimeError: expected m1 and m2 to have the same dtype, but got: float != c10::BFloat16",
        "user-code",
        "certain",
        "types float and BFloat16 meet",
    ),
    ("ValueError: Must flatten tensors with uniform dtype but got a and b", "user-code", "certain", "differ in dtype"),
    ("RuntimeError: Missing key in checkpoint state_dict: b.", "checkpoint-mismatch", "certain", "has no `b`"),
    (
        "safetensors.SafetensorError: File does not contain tensor lm_head.weight",
        "checkpoint-mismatch",
        "certain",
        "`lm_head.weight`",
    ),
    (
        "deepspeed.ZeRORuntimeException: The checkpoint being loaded used a DP world size of 8 but the"
        " current world size is 4. Automatic adjustment is not supported.",
        "checkpoint-mismatch",
        "certain",
        "was written by 8 processes and is read by 4",
    ),
    (
        "RuntimeError: Error(s) in loading state_dict for Net:\n\tUnexpected key(s) in state_dict: \"_flat_param\". ",
        "checkpoint-mismatch",
        "certain",
        'keys such as "_flat_param": the model',
    ),
    (
        "ResourceExhaustedError: {{function_node __wrapped__Fill_device_/job:localhost/device:CPU:0}} OOM"
        " when allocating tensor with shape[2,2] and type float on /job:localhost/device:CPU:0 by allocator mklcpu"
        " [Op:Fill] name: ",
        "host-out-of-memory",
        "certain",
        "not the GPU",
    ),
    ("InternalError: Failed copying: Dst tensor is not initialized.", "gpu-out-of-memory", "likely", "a smaller batch"),
    # --- collectives
    (
        f"{NCCL}\nncclInvalidUsage: This usually reflects invalid usage of NCCL library.\nLast error:\n"
        "Mismatched NCCL version detected : rank 4 version 22703 rank 0 version 22705",
        "missing-module",
        "certain",
        "rank 4 uses NCCL 2.27.3, rank 0 2.27.5",
    ),
    (
        "horovod.common.exceptions.HorovodInternalError: Mismatched data types: One rank had type float32, but another"
        " rank had type float64.",
        "collective-mismatch",
        "certain",
        "different tensors under the same name",
    ),
    (
        "RuntimeError: [1]: params[0] in this process with sizes [3, 2] appears not to match sizes of the same param in"
        " process 0.",
        "collective-mismatch",
        "likely",
        "this rank and rank 0 built different models",
    ),
    (
        'RuntimeError: Error(s) in loading state_dict for FSDPLinear:\n\tWhile copying the parameter named "weight", an'
        " exception occurred : ('aten.copy_.default got mixed torch.Tensor and DTensor',).",
        "user-code",
        "certain",
        "`set_model_state_dict`",
    ),
    (
        "RuntimeError: The server socket has failed to bind to [::]:29500 (errno: 98 - Address already in use).",
        "rendezvous",
        "certain",
        "uses port 29500",
    ),
    ("RuntimeError: ifa != nullptr. Unable to find address for: eth9", "rendezvous", "certain", "interface `eth9`"),
    # --- files of several processes, and limits
    ("sqlite3.OperationalError: database is locked", "user-code", "likely", "the same SQLite file"),
    (
        "BlockingIOError: [Errno 11] Unable to open file (unable to lock file, errno = 11, error message ="
        " 'Resource temporarily unavailable')",
        "user-code",
        "likely",
        "HDF5 file",
    ),
    ("OSError: [Errno 28] inotify watch limit reached", "user-code", "certain", "no disk is full"),
    ("OSError: Corrupt snappy compressed data.", "user-code", "likely", "cut short or of another type"),
    (
        "lightning.MisconfigurationException: You requested gpu: [0, 1, 2, 3]\n But your machine only has: [0]",
        "bad-arguments",
        "certain",
        "the GPUs [0, 1, 2, 3] and this process sees [0]",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("error", "kind", "certainty", "hint"), ERRORS, ids=[one[0][:60] for one in ERRORS])
def test_an_error_of_a_library_is_of_its_kind_and_has_a_next_step(
    error: str, kind: str, certainty: str, hint: str
) -> None:
    found = verdict({0: raised(LOST), 1: in_a_library(error), 2: raised(LOST)})

    assert (found.kind, found.certainty, found.ranks) == (kind, certainty, [1])
    assert (found.file, found.followers) == (None if "Error 802" in error else "train.py", [0, 2])
    assert hint in (found.hint or "")


LINES = [
    (
        "In 'config': Could not find 'model/large'\n\nAvailable options in 'model':\n\tbase\n\tsmall\nConfig search:",
        "bad-arguments",
        "there are `base`, `small`",
    ),
    ("Primary config directory not found.\nCheck that the config directory 'c' exists", "missing-file", "hydra.main"),
    ("Cannot find primary config 'trian'. Check that it's in your config search path.", "missing-file", "hydra.main"),
    ("Error in call to target 'models.Net':\nTypeError('no depht')", "user-code", "`models.Net`"),
    (
        "Could not load library libcudnn_cnn_infer.so.8. Error: libnvrtc.so: cannot open shared object file\nAborted",
        "missing-module",
        "`libcudnn_cnn_infer.so.8`",
    ),
    ("Unable to load any of {libcudnn_ops.so.9.1.0}\nAborted", "missing-module", "libcudnn_ops.so.9.1.0"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "kind", "hint"), LINES, ids=[one[0][:40] for one in LINES])
def test_a_line_of_a_library_is_the_cause(text: str, kind: str, hint: str) -> None:
    found = verdict({0: raised(LOST), 1: text, 2: raised(LOST)})

    assert (found.kind, found.certainty, found.ranks) == (kind, "likely", [1])
    assert hint in (found.hint or "")


def test_a_library_that_could_not_be_loaded_before_the_work_is_not_the_cause() -> None:
    steps = "".join(f"step {n} loss 1\n" for n in range(9))
    found = verdict({0: f"Could not load library libcudnn_ops.so.8. Error: x\n{steps}{raised('KeyError: 1')}"})

    assert found.exception == "KeyError"


# --- here


def of_this(fails: Callable[[], object]) -> str:
    """The real traceback of something that fails."""
    try:
        fails()
    except Exception:
        return traceback.format_exc()
    raise AssertionError("it did not fail")


def test_a_configuration_that_is_no_json_here() -> None:
    found = verdict({0: of_this(lambda: json.loads('{"lr": 0.1,\n}'))})

    assert (found.kind, found.file) == ("user-code", __file__)
    assert "no JSON at line " in (found.hint or "")


def test_a_configuration_that_is_no_yaml_here(tmp_path: Path) -> None:
    import yaml

    path = tmp_path / "conf.yaml"
    path.write_text("lr: 0.1\nmodel:\n  name: a\n\tdepth: 3\n")
    with path.open() as file:
        found = verdict({0: of_this(lambda: yaml.safe_load(file))})

    assert (found.kind, found.exception, found.file) == ("user-code", "ScannerError", __file__)
    assert (
        found.hint == f"`{path}` cannot be read at line 4, column 1: found character '\\t' that cannot start any token"
    )


def test_a_database_that_another_process_writes_to_here(tmp_path: Path) -> None:
    one, other = (sqlite3.connect(tmp_path / "x.db", timeout=0) for _ in range(2))
    one.execute("begin exclusive")
    found = verdict({0: of_this(lambda: other.execute("create table t (x)"))})
    one.close()
    other.close()

    assert (found.kind, found.certainty, found.exception) == ("user-code", "likely", "OperationalError")
    assert "SQLite" in (found.hint or "")


@needs("torch")
def test_types_and_devices_that_are_mixed_here() -> None:
    import torch

    half = verdict({0: of_this(lambda: torch.nn.Linear(3, 3).half()(torch.ones(2, 3)))})
    meta = verdict({0: of_this(lambda: torch.ones(3) + torch.nn.Linear(3, 3, device="meta")(torch.ones(2, 3)))})
    labels = verdict({0: of_this(lambda: torch.nn.functional.cross_entropy(torch.ones(2, 3), torch.ones(2).int()))})

    assert [one.certainty for one in (half, meta, labels)] == ["certain"] * 3
    assert "types Float and Half meet" in (half.hint or "")
    assert "on the meta device" in (meta.hint or "")
    assert "`.long()`" in (labels.hint or "")
