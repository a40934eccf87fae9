"""Hints about what to do, with the values of the failure."""

from __future__ import annotations

import posixpath
import re
from typing import NamedTuple

from azml_dist.verdict.known import CODE_ROOT, Known

_BATCH = re.compile(r"(--?(?:per[-_]device[-_](?:train[-_])?|train[-_]|micro[-_])?batch[-_]size)[= ]+(\d+)")
_TRIED = re.compile(r"Tried to allocate (?P<asked>[\d.]+ \w+)")
_TOTAL = re.compile(
    r"GPU (?P<gpu>\d+)(?: has a total capac\w+ of |.{0,12}?\(?.{0,6}?;? ?)(?P<total>[\d.]+ [GMK]iB)"
    r"(?: of which (?P<free>[\d.]+ \w+) is free| total capacity)"
)
_LOADED = re.compile(r"(?i)(?:resum|load|restor)\w*\b.{0,40}\b(?:checkpoint|ckpt|state)|resumed (?:at|from)")
_NOT_TORCH = re.compile(
    r"RESOURCE_EXHAUSTED|ResourceExhausted|OOM when allocating|Dst tensor|(?:XPU|NPU|HPU|MPS backend) out of"
)
"""Messages of frameworks and devices that do not read `PYTORCH_CUDA_ALLOC_CONF`."""
_HOW_TO_GET = {
    "torch": "pip install 'azml-dist[torch]'",
    "tensorflow": "pip install 'azml-dist[tensorflow]'",
    "ray": "pip install 'azml-dist[ray]'",
    # A script in azml_dist's repository: unpatched, Horovod does not build against current torch.
    "horovod": "bash environments/mpi-horovod/install_horovod.sh",
}
_DISTRIBUTION = {
    "cv2": "opencv-python-headless",
    "sklearn": "scikit-learn",
    "skimage": "scikit-image",
    "PIL": "pillow",
    "yaml": "pyyaml",
    "azureml": "azureml-core",
    "azure.ai.ml": "azure-ai-ml",
    "pkg_resources": "setuptools<81",
    "google.protobuf": "protobuf",
    "dotenv": "python-dotenv",
    "bs4": "beautifulsoup4",
    "attr": "attrs",
}
"""How to install a module whose package has another name."""
_LOGINS = {
    "wandb": ("WANDB_API_KEY", "WANDB_MODE=offline"),
    "comet": ("COMET_API_KEY", "COMET_MODE=disabled"),
    "neptune": ("NEPTUNE_API_TOKEN", "NEPTUNE_MODE=offline"),
}
"""The variables with the key of a server, and with which its client needs none."""
_PORT = re.compile(r"\b(?:port:? |bind to \S{1,60}:)(\d+)")
_OF_MPI = {"6105", "54965"}
"""The ports that DeepSpeed and others choose in MPI jobs on Azure ML (`deepspeed/comm/comm.py`)."""
_KEYS = re.compile(
    r"size mismatch for (?P<key>\S+?): .*?shape (?P<there>\S+\(.*?\)|\(.*?\)) .*?is (?P<here>\S+\(.*?\)|\(.*?\))\.?$"
)
_MISSING_KEYS = re.compile(r"(?P<what>Missing|Unexpected) key\(s\) in state_dict: (?P<keys>.{1,160})")


class About(NamedTuple):
    """The information that hints can use."""

    text: str
    """All lines of the message."""
    log: str
    """What the rank had written before."""
    known: Known


def of_gpu_memory(found: re.Match[str], about: About) -> str:
    """How much memory there was and how much was requested, and how to need less."""
    asked, total = _TRIED.search(about.text), _TOTAL.search(about.text)
    figures = []
    if total:
        free = f", {total['free']} free" if total["free"] else ""
        figures.append(f"GPU {total['gpu']} has {total['total']}{free}")
    if asked:
        figures.append(f"{asked['asked']} more was needed")
    batch = _BATCH.search(about.known.command or "")
    ways = [f"`{batch[1]}` is {batch[2]}: try {max(1, int(batch[2]) // 2)}" if batch else "use a smaller batch"]
    if _LOADED.search(about.log):
        ways.append('if a checkpoint was loaded, load it with `map_location="cpu"`')
    if not _NOT_TORCH.search(about.text):
        ways.append("`PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True` helps against fragmentation")
    return "; ".join([*figures, *ways])


def of_a_module(found: re.Match[str], about: About) -> str:
    """How to install the module, on this machine or in the environment of the job."""
    name = found["module"]
    top = name.partition(".")[0]
    brings = _DISTRIBUTION.get(name) or _DISTRIBUTION.get(top) or top
    if rule := _rule(f"{top}.py", about.known) or _rule(top, about.known):
        return f"`{top}` is in your code folder, and left out by {rule}"
    if about.known.here:
        command = _HOW_TO_GET.get(top, f"pip install '{brings}'")
        other = f"`{about.known.environment}`" if about.known.environment else "the job's environment"
        return f"`{command}`: local runs use the packages of this machine, not those of {other}"
    where = f"environment `{about.known.environment}`" if about.known.environment else "the environment of the job"
    return f"add `{brings}` to {where}; if `{top}` is your own code, check that its folder is uploaded"


def of_a_started_module(found: re.Match[str], about: About) -> str:
    """What to check if `python -m` does not find the module that the command names."""
    top = found["module"].partition(".")[0]
    if _rule(f"{top}.py", about.known) or _rule(top, about.known) or top in _HOW_TO_GET:
        return of_a_module(found, about)
    own = f"if `{top}` is your own code, check its name in the command, and that `code` is the folder that contains it"
    return f"{own}; otherwise {of_a_module(found, about).partition('; if ')[0]}"


def of_an_attribute(found: re.Match[str], about: About) -> str:
    """Why a module may lack a name."""
    module, name = found["module"], found["name"]
    said = f"`{module}` has no `{name}`: this is another version than the code expects"
    return said if "." in module else f"{said}, or a file `{module}.py` in your code hides the package"


def of_a_port(found: re.Match[str], about: About) -> str:
    """Who may use the port, and how a local run gets a network in which nobody else does."""
    port = _PORT.search(about.text)
    if about.known.here and port and port[1] in _OF_MPI:
        return (
            f"another process uses port {port[1]}, which DeepSpeed and others choose in MPI jobs: wait until the other"
            " run has ended, or give this one its own network with `--apart`"
        )
    which = f"port {port[1]}" if port else "this port"
    return f"another process uses {which}: an earlier run may still be running, or two processes of a node both listen"


def of_a_file(found: re.Match[str], about: About) -> str | None:
    """What to check for this kind of path."""
    path = found["path"]
    if not path:
        return None
    if rule := _rule(path, about.known):
        return f"`{path}` is in your code folder, and left out by {rule}"
    if re.search(r"/INPUT_|/mounts/|/cap/data-capability/|/azureml/run/", path):
        return f"`{path}` is inside an input: check that the data has this path"
    if re.fullmatch(r"[a-z][\w+-]*", path) and "[Errno 2]" in found[0]:
        return f"if `{path}` is a program, it is not in the image or not on its PATH"
    if path.startswith("/"):
        return f"`{path}` does not exist on the node: pass data as an input, and write only to `./outputs` or an output"
    return f"`{path}` is relative to the code folder: check that it exists there and is not excluded by an ignore file"


def of_a_script(found: re.Match[str], about: About) -> str:
    """What to check if Python does not find the script that the command names."""
    path = found["path"]
    inside = next((path[len(root) :] for root in about.known.code_roots if path.startswith(root)), None)
    name = CODE_ROOT.sub("", path) if inside is None else inside.lstrip("/")
    if rule := _rule(path, about.known):
        return f"`{name}` is in your code folder, and left out by {rule}"
    if name.startswith("/"):
        return f"`{path}` does not exist on the node: check the command; the code is in the folder in which it starts"
    return f"there is no `{name}` in the code: check its name in the command, and that `code` is the right folder"


def of_a_login(found: re.Match[str], about: About) -> str:
    """Which variable takes the key of the server to which the script reports."""
    service = next((name for name in _LOGINS if name in about.text.lower()), None)
    if service is None:
        return "the server that the script reports to requires a login: pass its key to the job as a secret"
    variable, without = _LOGINS[service]
    return f"pass `{variable}` to the job as a secret, or set `{without}` to do without a login"


def of_json(found: re.Match[str], about: About) -> str:
    """What is often wrong with a text that should be JSON."""
    if about.text.startswith("requests."):
        return "the answer of the server is no JSON: print its status and its beginning"
    what, place = found["what"], f"line {found['line']}, column {found['column']}"
    if what == "Expecting value" and place == "line 1, column 1":
        return "the text is empty or no JSON at all: print its beginning; another process may just be writing the file"
    if what == "Extra data":
        return f"the JSON ends before {place}: a file with one object per line must be read line by line"
    return f"the text is no JSON at {place}: it allows no comma before `}}` or `]`, no comments and no single quotes"


def of_yaml(found: re.Match[str], about: About) -> str:
    """Where YAML is wrong, and how."""
    name = f"`{found['file']}`" if not found["file"].startswith("<") else "the YAML"
    said = re.sub(r"^\w+Error: ", "", found["what"]).strip()
    if "python/" in said:
        return f"{name} contains objects of Python, which `yaml.safe_load` does not read: write plain values"
    return f"{name} cannot be read at line {found['line']}, column {found['column']}: {said}"


def of_a_driver(found: re.Match[str], about: About) -> str:
    """Which CUDA the driver supports: 11040 is 11.4."""
    version = int(found["version"])
    cuda = f"{version // 1000}.{version % 1000 // 10}"
    return f"the driver of the node supports CUDA up to {cuda}: install a torch that was built for that or an older one"


def of_nccl_versions(found: re.Match[str], about: About) -> str:
    """Which ranks use another NCCL: 22705 is 2.27.5."""
    who = "the processes use different versions of NCCL"
    if found["one"] and found["other"]:
        one, other = (f"{int(n) // 10000}.{int(n) // 100 % 100}.{int(n) % 100}" for n in (found["one"], found["other"]))
        who = f"rank {found['rank']} uses NCCL {one}, rank {found['peer']} {other}"
    return f"{who}: use one image on all nodes, and let `LD_LIBRARY_PATH` and `LD_PRELOAD` name no other NCCL"


def of_a_package(found: re.Match[str], about: About) -> str:
    """How to install the package that a library asks for."""
    name = next(name for name in found.groups() if name)
    if about.known.here:
        return f"`pip install '{name.lower()}'`: local runs use the packages of this machine"
    return f"add `{name.lower()}` to the environment of the job"


def of_devices(found: re.Match[str], about: About) -> str:
    """Which devices were mixed."""
    named = re.findall(r"\b(?:cuda(?::\d+)?|cpu|mps|xpu|meta)\b", found["what"].partition("(when")[0])
    devices = list(dict.fromkeys(named))
    if len(devices) == 2 and all(one.startswith("cuda:") for one in devices):
        return (
            f"tensors on {devices[0]} and {devices[1]} meet in one process: give each process one GPU with"
            " `torch.cuda.set_device(int(os.environ['LOCAL_RANK']))`, and load with `map_location`"
        )
    if "meta" in devices:
        return "a part of the model is still on the meta device, without values: load its weights, or use `to_empty`"
    return "the model, its inputs and the labels must be on one device: move each with `.to(device)`"


def of_types(found: re.Match[str], about: About) -> str:
    """Which types were mixed."""
    values = found.groupdict()
    if "Long" in (values["wanted"], values["target"], values["types"]):
        return "labels and indices must be integers: convert them with `.long()`"
    named = [one for one in found.groups() if one]
    pair = " and ".join(one.replace("c10::", "") for one in named[:2])
    return f"tensors of types {pair} meet: use `torch.autocast`, or convert the input or the model with `.to(dtype)`"


def of_a_config(found: re.Match[str], about: About) -> str:
    """Which configurations there are instead of the missing one."""
    options = (found["options"] or "").split()
    there = f": there are {', '.join(f'`{one}`' for one in options[:8])}" if options else ""
    return f"there is no configuration `{found['wrong']}`{there}; check that no ignore file leaves it out"


def of_a_program(found: re.Match[str], about: About) -> str:
    """What to check if a shell does not find a program: options on a line of their own are none."""
    path = found["path"]
    if path.startswith("-"):
        return (
            f"bash ran the line that begins with `{path}` as a command of its own: end the line before it with ` \\`,"
            " or write `command: >-`, which joins all lines into one"
        )
    if "\\r" in path:
        return "the script has Windows line ends: convert it with `sed -i 's/\\r$//' SCRIPT`"
    return f"the program `{path}` is not in the image or not on its PATH"


def of_an_interpreter(found: re.Match[str], about: About) -> str:
    """What to check if the program in the first line of a script does not exist."""
    path = found["path"]
    return (
        f"the program in the first line of `{path}`, after `#!`, does not exist; if the file has Windows line ends,"
        f" convert it with `sed -i 's/\\r$//' {path}`"
    )


def _rule(path: str, known: Known) -> str | None:
    """What keeps a file or folder of the code folder from being uploaded: `.amlignore` line 3 (`data/`)."""
    root = next((root for root in known.code_roots if path.startswith(root)), "")
    inside = posixpath.normpath(path[len(root) :])
    rule = known.left_out.get(inside) or next(
        (one for file, one in known.left_out.items() if file.startswith(f"{inside}/")), None
    )
    file, line, pattern = rule.split(":", 2) if rule and rule.count(":") > 1 else ("", "", "")
    return f"`{file}` line {line} (`{pattern.strip()}`)" if file else rule


def of_a_checkpoint(found: re.Match[str], about: About) -> str:
    """The first key that does not match, and how it differs."""
    for line in about.text.splitlines():
        if key := _KEYS.search(line):
            return (
                f"`{key['key']}` is {key['there']} in the checkpoint and {key['here']} in the model:"
                " build the model with the options that were used for the checkpoint"
            )
        if keys := _MISSING_KEYS.search(line):
            first = keys["keys"].split(",")[0].strip(" .")
            return (
                f"{keys['what'].lower()} keys such as {first}: the model differs from the saved one, or its names have"
                " a prefix such as `module.`"
            )
    return "build the model with the options that were used for the checkpoint"


def of_an_argument(found: re.Match[str], about: About) -> str:
    """The argument that the script does not accept."""
    wrong = found["wrong"]
    if re.match(r"--local[-_]rank\b", wrong):
        return (
            "`torch.distributed.launch` passes this argument: start the script with `torchrun` or without a launcher,"
            " and read `LOCAL_RANK` from the environment"
        )
    name = wrong.split("=")[0].split()[0] if wrong.split() else wrong
    where = (
        f", which is in the command: `{_around(about.known.command, name)}`"
        if about.known.command and name in about.known.command
        else ""
    )
    return f"the script does not accept `{wrong[:80]}`{where}"


def _around(command: str, name: str) -> str:
    at = command.index(name)
    return " ".join(command[max(0, at - 30) : at + 60].split())
