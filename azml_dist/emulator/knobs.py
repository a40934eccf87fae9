"""What can be set of the emulated service: in Python, on the command line and by HTTP, under the same names.

emulator.knobs.queue_seconds = 30
emulator.knobs.set("clusters", {"small": {"vm_size": "STANDARD_D2_V2", "max_nodes": 1}})
azml-dist emulator --set queue_seconds=30
PATCH /emulator/knobs {"queue_seconds": 30}
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from math import isfinite
from typing import Any

from azml_dist.emulator.given import known, made, mapping
from azml_dist.emulator.state import Cluster, Datastore, VmSize, Workspace
from azml_dist.emulator.wire import Json
from azml_dist.emulator.world import RUNTIME, Runtime

PRIORITIES = ("Dedicated", "LowPriority")
ROLES = {
    "Contributor": (("*",), ("Microsoft.Authorization/*/Delete", "Microsoft.Authorization/*/Write")),
    "Reader": (("*/read",), ()),
}
"""`actions` and `notActions` of built-in roles."""
WRITES = frozenset(
    f"{kind}.{verb}"
    for kind in ("jobs", "codes", "environments", "data", "components", "models", "runs", "datastores")
    for verb in ("put", "patch", "cancel", "startPendingUpload", "listSecrets")
)
"""Routes for which a `Reader` has no right."""


class KnobError(ValueError):
    """A knob that there is not, or a value that it cannot have; the message is for people."""


@dataclass
class Knobs:
    """How the service behaves. Those about jobs apply to jobs that are submitted from then on."""

    run_jobs: bool = True
    """Whether jobs run by themselves; otherwise they wait for `advance` or `start`."""
    queue_seconds: float = 0.0
    """How long each job waits in the queue, though nodes are free."""
    queue_reason: str | None = None
    """What the service says about that wait, as `queueingInfo`."""
    image_seconds: float = 0.0
    """How long the build of the image takes, in the state `Preparing`."""
    image_failure: str | None = None
    """Last words of an image build that fails; the job fails with it."""
    fail_rank: int | None = None
    """The rank that is killed. Other ranks are stopped by the service, as after any failure."""
    fail_after: float = 0.0
    """When that rank is killed: seconds after its start."""
    preempt_after: float | None = None
    """When the nodes are taken away: seconds after the start of the first attempt. The job starts again on others."""
    latency: float = 0.0
    """Seconds added to each answer."""
    token_seconds: float | None = None
    """How long a token of the login is valid; by default as long as the emulator runs."""
    sas_seconds: float = 3600.0
    """How long the shared access signatures that the service hands out are valid."""
    clock_skew: float = 0.0
    """How many seconds the clock of the service is ahead of this machine's."""
    job_env: dict[str, str] = field(default_factory=dict)
    """Environment variables that every job gets, as if its image set them."""
    workspace: Workspace | None = field(default=None, repr=False)

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        here = getattr(self, "workspace", None)
        if here and name in ("token_seconds", "sas_seconds", "clock_skew", "workspace"):
            here.token_seconds = self.token_seconds
            here.account.sas_minutes = self.sas_seconds / 60
            here.skew = here.account.skew = self.clock_skew

    def set(self, name: str, value: Any) -> None:
        """Set a knob, one of the workspace's included; a text is read as its type asks. Raises `KnobError`."""
        if name in _OF_THE_WORKSPACE:
            assert self.workspace
            try:
                _OF_THE_WORKSPACE[name][1](self.workspace, _parsed(value))
            except (TypeError, AttributeError, KeyError, ValueError) as error:
                raise KnobError(f"{name} cannot be {value!r}: {error}") from error
            return
        if name not in _OWN:
            raise KnobError(
                f"there is no knob `{name}`{_similar(name)}; there are {', '.join([*_OWN, *_OF_THE_WORKSPACE])}"
            )
        setattr(self, name, _as(name, _OWN[name], _parsed(value)))

    def told(self) -> Json:
        """All of them, as JSON."""
        own: Json = {name: getattr(self, name) for name in _OWN}
        here = self.workspace
        return (
            own if here is None else {**own, **{name: read(here) for name, (read, _, _) in _OF_THE_WORKSPACE.items()}}
        )

    def copy(self) -> Knobs:
        """As they are now, for a job."""
        return replace(self, job_env=dict(self.job_env), workspace=None)


_OWN = {one.name: str(one.type) for one in fields(Knobs) if one.name != "workspace"}


def _parsed(value: Any) -> Any:
    """A text of the command line as JSON, or as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _as(name: str, kind: str, value: Any) -> Any:
    optional = kind.endswith(" | None")
    kind = kind.removesuffix(" | None")
    if value is None and optional:
        return None
    if kind == "bool" and isinstance(value, bool):
        return value
    if kind == "int" and isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if kind == "float" and isinstance(value, (int, float)) and not isinstance(value, bool):
        if not isfinite(value):
            raise KnobError(f"{name} cannot be {value}: it is a finite number of seconds")
        if value < 0 and name not in ("clock_skew", "sas_seconds", "token_seconds"):
            raise KnobError(f"{name} cannot be {value}: it is a number of seconds from 0")
        return float(value)
    if kind == "str" and isinstance(value, (str, int, float)):
        return str(value)
    if kind.startswith("dict") and isinstance(value, dict):
        return {str(key): str(one) for key, one in value.items()}
    wanted = {"bool": "true or false", "int": "a whole number from 0", "float": "a number of seconds", "str": "a text"}
    raise KnobError(f"{name} cannot be {value!r}: it is {wanted.get(kind, 'an object of texts')}")


def _similar(name: str) -> str:
    found = get_close_matches(name, [*_OWN, *_OF_THE_WORKSPACE], n=1)
    return f", did you mean `{found[0]}`?" if found else ""


def _set_clusters(here: Workspace, value: Any) -> None:
    like = 'such as `{"vm_size": "STANDARD_NC24S_V3", "max_nodes": 2}`'
    clusters = mapping(value, "clusters by their names")
    found = {name: made(Cluster, one, f"{like}, for each cluster") for name, one in clusters.items()}
    for name, cluster in found.items():
        if cluster.priority not in PRIORITIES:
            raise ValueError(f"`priority` is {' or '.join(PRIORITIES)}, which is Spot today, not {cluster.priority!r}")
        if name in here.computes:
            cluster.runs = here.computes[name].runs
    here.computes = found


def _set_quota(here: Workspace, value: Any) -> None:
    for row, limit in mapping(value, "limits by rows of the quota").items():
        known(row, here.quota, "row")
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < -1:
            raise ValueError(f"a limit is a whole number, or -1 for none, not {limit!r}")
        here.quota[row] = (here.quota[row][0], limit)


def _set_sizes(here: Workspace, value: Any) -> None:
    like = 'such as `{"family": "standardNCSv3Family", "v_cpus": 24, "gpus": 4, "memory_gb": 448}`, for each size'
    sizes = mapping(value, "sizes by their names")
    here.vm_sizes = tuple(made(VmSize, one, like, name=name) for name, one in sizes.items())


def _set_prices(here: Workspace, value: Any) -> None:
    by_name = {size.name.upper(): size for size in here.vm_sizes}
    for name, price in mapping(value, "prices by VM sizes").items():
        size = known(name.upper(), by_name, "size")
        if price is not None and (not isinstance(price, int | float) or isinstance(price, bool) or not price >= 0):
            raise ValueError(f"a price is a number from 0, or null, not {price!r}")
        by_name[size] = replace(by_name[size], price=price)
    here.vm_sizes = tuple(by_name.values())


def _set_identity(here: Workspace, value: Any) -> None:
    modes = dict.fromkeys(here.datastores, value) if isinstance(value, str) else mapping(value, "modes by datastores")
    for name, mode in modes.items():
        if mode not in ("key", "sas", "none"):
            raise ValueError("it is `key`, `sas` or `none`")
        here.datastores[name] = Datastore(here.datastores[known(name, here.datastores, "datastore")].container, mode)


def _set_role(here: Workspace, value: str) -> None:
    if value not in ROLES:
        raise ValueError(f"it is one of {', '.join(ROLES)}")
    here.roles = [ROLES[value]]
    here.forbidden = (here.forbidden - WRITES) | (WRITES if value == "Reader" else set())


def _set_forbidden(here: Workspace, value: list[str]) -> None:
    if not isinstance(value, list):
        raise TypeError("it is a list of names of routes")
    here.forbidden = set(value)


def _set_runtime(here: Workspace, value: Any) -> None:
    """Those that are not named are as the service has them."""
    usual = asdict(RUNTIME)
    for name, one in mapping(value, "what jobs find, by name").items():
        if name not in usual:
            raise ValueError(f"there is no `{name}`; there are {', '.join(usual)}")
        if one is None and usual[name] is None:
            continue
        kind = {"rank_digits": int, "task_port": int, "unset": list}.get(name, type(usual[name]))
        if not isinstance(one, kind) or isinstance(one, bool) != isinstance(usual[name], bool):
            raise ValueError(f"{name} cannot be {one!r}")
    here.runtime = Runtime(**{**value, "unset": frozenset(value.get("unset", ()))})


def _told_runtime(here: Workspace) -> Json:
    return {name: sorted(one) if isinstance(one, frozenset) else one for name, one in asdict(here.runtime).items()}


def _told_cluster(cluster: Cluster) -> Json:
    return {"vm_size": cluster.vm_size, "max_nodes": cluster.max_nodes, "min_nodes": cluster.min_nodes} | {
        "priority": cluster.priority,
        "idle": cluster.idle,
        "state": cluster.state,
    }


_OF_THE_WORKSPACE: dict[str, tuple[Callable[[Workspace], Any], Callable[[Workspace, Any], None], str]] = {
    "clusters": (
        lambda here: {name: _told_cluster(one) for name, one in here.computes.items()},
        _set_clusters,
        'The clusters by name: `{"gpu": {"vm_size": "STANDARD_NC24S_V3", "max_nodes": 2}}`.',
    ),
    "quota": (
        lambda here: {row: limit for row, (_, limit) in here.quota.items()},
        _set_quota,
        "Limits of vCPUs, by row of the quota; -1 for none.",
    ),
    "sizes": (
        lambda here: {size.name: {k: v for k, v in asdict(size).items() if k != "name"} for size in here.vm_sizes},
        _set_sizes,
        "The VM sizes of the region, by name.",
    ),
    "prices": (
        lambda here: {size.name: size.price for size in here.vm_sizes},
        _set_prices,
        "US dollars for an hour under Linux, by VM size; null where the service names none.",
    ),
    "identity": (
        lambda here: {name: store.secrets for name, store in here.datastores.items()},
        _set_identity,
        "How datastores are read: `key`, `sas`, or `none`, that is with the caller's own login; of all or by name.",
    ),
    "role": (
        lambda here: next((name for name, role in ROLES.items() if [role] == here.roles), None),
        _set_role,
        "The caller's role: `Contributor` or `Reader`.",
    ),
    "runtime": (
        _told_runtime,
        _set_runtime,
        'What jobs find where the documentation leaves it open, for `probe` to find: `{"batch_port": 6001}`.',
    ),
    "forbidden": (
        lambda here: sorted(here.forbidden),
        _set_forbidden,
        "Routes that answer 403, such as `jobs.put` or `*`.",
    ),
}


def table() -> list[tuple[str, str, str]]:
    """Name, default and meaning of each knob, for documents and help."""
    import ast
    import inspect

    tree = ast.parse(inspect.getsource(Knobs)).body[0]
    assert isinstance(tree, ast.ClassDef)
    texts: dict[str, str] = {}
    for before, after in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name) and isinstance(after, ast.Expr):
            texts[before.target.id] = str(ast.literal_eval(after.value))
    default = Knobs()
    own = [(name, json.dumps(getattr(default, name)), texts[name]) for name in _OWN]
    return [*own, *((name, "", text) for name, (_, _, text) in _OF_THE_WORKSPACE.items())]
