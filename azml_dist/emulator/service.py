"""The emulator: takes requests from the way in, records them, applies faults, and lets the services answer."""

from __future__ import annotations

import base64
import secrets
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from email.utils import formatdate
from pathlib import Path
from types import TracebackType

import trustme

from azml_dist.emulator.account import Account
from azml_dist.emulator.assets import AssetRoutes
from azml_dist.emulator.control import ControlRoutes
from azml_dist.emulator.faults import Fault, Faults, Kind
from azml_dist.emulator.groups import GroupRun
from azml_dist.emulator.history import HistoryRoutes
from azml_dist.emulator.image_of import image_of
from azml_dist.emulator.jobs import Job, JobRoutes
from azml_dist.emulator.knobs import Knobs
from azml_dist.emulator.login import LoginRoutes
from azml_dist.emulator.node import JobRun
from azml_dist.emulator.ownblobs import OwnAccount
from azml_dist.emulator.routing import Route, Router
from azml_dist.emulator.schedule import Schedule
from azml_dist.emulator.server import ProxyServer
from azml_dist.emulator.state import Workspace
from azml_dist.emulator.tracking import TrackingRoutes
from azml_dist.emulator.wire import Headers, Refusal, Reply, Request, new_request_id
from azml_dist.emulator.workspace import WorkspaceRoutes


class Emulator:
    """Azure Machine Learning, as far as a training job needs it, on 127.0.0.1.

    `workspace` holds what the service has and allows, `requests` what arrived, `inject` puts faults in the way.
    Use it as a context manager; `assert_clean` raises for every request that the emulator did not know.
    """

    def __init__(
        self,
        account: Account | None = None,
        authority: trustme.CA | None = None,
        *,
        workspace: Workspace | None = None,
        secret: str | None = None,
        port: int = 0,
    ) -> None:
        """Make the workspace; by default with a storage, an authority and a secret that nobody else has."""
        self.workspace = workspace or Workspace(account or own_account())
        self.requests: list[Request] = []
        """Every request, in order of arrival."""
        self.knobs = Knobs(workspace=self.workspace)
        """How the service behaves."""
        self.problems: list[str] = []
        """What fails a test: unknown hosts and routes, bodies with a wrong shape, errors in the emulator."""
        self.assets = AssetRoutes(self.workspace)
        self.jobs = JobRoutes(self.workspace, self.assets)
        self.login = LoginRoutes(self.workspace)
        services = (
            WorkspaceRoutes(self.workspace),
            self.assets,
            self.jobs,
            HistoryRoutes(self.workspace, self.jobs),
            self.login,
        )
        self.schedule = Schedule(self.workspace, self._start_scheduled)
        self._router = Router(self.workspace, (*services, TrackingRoutes(self.jobs), ControlRoutes(self)))
        self._runs: list[JobRun] = []
        self._groups: list[GroupRun] = []
        self._image: Mapping[str, str] = {}
        self._faults = Faults()
        self._lock = threading.Lock()
        self._no_delays = threading.Event()
        self._authority = authority or trustme.CA()
        for store in self.workspace.datastores.values():
            self.account.create_container(store.container)
        secret = secret or secrets.token_urlsafe(24)
        self._server = ProxyServer(self._serve, self._authority, secret=secret, port=port)
        self.workspace.entry = self.url

    @property
    def account(self) -> Account:
        """The workspace's storage account."""
        return self.workspace.account

    @property
    def routes(self) -> list[Route]:
        """All that it plays, but for the storage."""
        return self._router.routes

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""
        return self._server.port

    @property
    def url(self) -> str:
        """Its own address, for knobs and faults; the service's addresses are reached through `environ`."""
        return f"http://127.0.0.1:{self.port}"

    def job(self, name: str) -> Job:
        """A job that was submitted."""
        return self.jobs.named(name)

    def start(self, name: str, *, env: Mapping[str, str] | None = None, knobs: Knobs | None = None) -> JobRun:
        """Run a submitted job on this machine, in the background; `env` stands for what its image would set."""
        run = JobRun(self.job(name), self.assets, env=env, knobs=knobs)
        self._runs.append(run)
        return run.start()

    def run(self, name: str, *, env: Mapping[str, str] | None = None, timeout: float = 60) -> JobRun:
        """Run a submitted job on this machine, to its end."""
        run = self.start(name, env=env)
        run.wait(timeout)
        return run

    def run_what_is_submitted(self, *, env: Mapping[str, str] | None = None) -> None:
        """From now on every new job runs by itself: queued, and started when its cluster has nodes for it."""
        self._image = {**env} if env is not None else image_of(self._server.port)
        self.jobs.on_submit = self._submitted

    def _submitted(self, job: Job) -> None:
        if not self.knobs.run_jobs:
            return
        if job.body["jobType"] == "Command":
            self.schedule.submit(job, self.knobs.copy())
        else:
            self._groups.append(GroupRun(job, self.jobs, self._submitted).start())

    def _start_scheduled(self, job: Job, knobs: Knobs, ended: Callable[[], None]) -> JobRun:
        run = JobRun(job, self.assets, env=self._image, knobs=knobs)
        run.on_end = ended
        self._runs.append(run)
        return run.start()

    @property
    def latency(self) -> float:
        """Seconds added to each answer."""
        return self.knobs.latency

    @latency.setter
    def latency(self, seconds: float) -> None:
        self.knobs.latency = seconds

    def play(self, *statuses: str) -> None:
        """From now on every new job walks through these statuses, one at each look that a client takes."""
        self.jobs.on_submit = lambda job: job.script.extend(statuses)

    def __enter__(self) -> Emulator:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every job and every connection."""
        self.end_delays()
        self.schedule.close()
        for group in self._groups:
            group.cancel()
        for run in self._runs:
            run.cancel()
        for run in self._runs:
            run.wait()
        self._server.stop()
        self.account.close()

    def environ(self, ca_file: Path) -> dict[str, str]:
        """The environment variables that send an unmodified client here; writes the authority to `ca_file`."""
        self._authority.cert_pem.write_to_path(str(ca_file))
        trust = dict.fromkeys(("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"), str(ca_file))
        proxy = dict.fromkeys(("HTTPS_PROXY", "https_proxy"), self._server.url)
        return {**trust, **proxy, "NO_PROXY": "", "no_proxy": ""}

    def inject(
        self,
        fault: Fault,
        *,
        at: int | None = None,
        route: str | None = None,
        host: str | None = None,
        times: int | None = 1,
    ) -> None:
        """Put a fault at request `at` of `requests`, or at the next `times` that match route and host patterns."""
        self._faults.add(fault, at=at, route=route, host=host, times=times)

    def clear_faults(self) -> None:
        """No more faults."""
        self._faults.clear()

    def preempt(self, name: str) -> bool:
        """Take the nodes of a running job away; False if it has none."""
        runs = [run for run in self._runs if run.job.name == name and run.job.status == "Running"]
        for run in runs:
            run.preempt()
        return bool(runs)

    def certify_as(self, host: str) -> None:
        """From now on be somebody in between: the certificates are of another host than the one that is asked."""
        self._server.certified_as = host

    def certify_for(self, **times: datetime) -> None:
        """From now on the certificates are valid between `not_before` and `not_after`."""
        self._server.certified_for = times
        self._server.forget_certificates()

    def forget(self) -> None:
        """Start over: no requests, no pending faults."""
        with self._lock:
            self.requests.clear()
            self._faults.clear()

    def end_delays(self) -> None:
        """Answer what waits, and from now on without delay."""
        self._no_delays.set()

    def counts(self) -> Counter[str]:
        """How many requests each route got."""
        return Counter(request.route or "unknown" for request in self.requests)

    def bytes_by_host(self) -> dict[str, tuple[int, int]]:
        """Bytes of bodies that came in and went out, by host."""
        totals: dict[str, tuple[int, int]] = {}
        for request in list(self.requests):
            into, out = totals.get(request.host, (0, 0))
            totals[request.host] = (into + request.bytes_in, out + request.bytes_out)
        return totals

    def assert_clean(self) -> None:
        """Raise if something came that the emulator refuses to know."""
        if self.problems:
            raise AssertionError("the emulator met what it refuses:\n  " + "\n  ".join(self.problems))

    def _serve(self, method: str, host: str, target: str, headers: Headers, body: bytes | Path) -> Reply | None:
        to_storage = host == self.account.host
        with self._lock:
            upload = body if isinstance(body, Path) else None
            content = body if isinstance(body, bytes) else b""
            request = Request(len(self.requests), method, host, target, headers, content, upload=upload)
            found = None if to_storage else self._router.find(request)
            request.route = _blob_route(request) if to_storage else found[0].name if found else None
            fault = self._faults.take(request)
            request.fault = str(fault) if fault else None
            self.requests.append(request)
        self._no_delays.wait(self.latency + (fault.seconds if fault else 0.0))
        reply: Reply | None = None
        if fault and fault.kind in (Kind.ANSWER, Kind.ODD):
            if fault.kind is Kind.ODD and fault.heard:
                self.jobs.work_on(request, fault.unseen)
                self._answer(request, found)
            reply = fault.reply(storage=to_storage)
        elif not fault or fault.kind is not Kind.RESET_BEFORE:
            reply = self._to_storage(request) if to_storage else self._answer(request, found)
        if reply is None or (fault and fault.kind is Kind.RESET_AFTER):
            return None
        reply.headers.setdefault("x-ms-request-id", new_request_id())
        if self.workspace.skew:
            reply.headers["Date"] = formatdate(time.time() + self.workspace.skew, usegmt=True)
        if self.workspace.on_change and method != "GET" and reply.status < 300:
            self.workspace.on_change()
        request.status, request.bytes_out = reply.status, reply.length
        return reply

    def _answer(self, request: Request, found: tuple[Route, dict[str, str]] | None) -> Reply:
        if found is None:
            self.problems.append(str(request))
            # 501, because the client's pipeline retries 500, 502, 503 and 504.
            return Refusal(501, "NotEmulated", f"the emulator has no route for {request}").reply()
        try:
            return self._router.call(found[0], request, found[1])
        except Refusal as refusal:
            if refusal.code in ("InvalidWireBody", "NotEmulated"):
                self.problems.append(f"{request}: {refusal}")
            return refusal.reply()
        except Exception:
            self.problems.append(f"{request}: the emulator failed:\n{traceback.format_exc()}")
            return Refusal(501, "EmulatorFailed", traceback.format_exc()).reply()

    def _to_storage(self, request: Request) -> Reply:
        """Blob requests go to the storage as they are; a bearer token is checked before."""
        try:
            self.workspace.check_permission(request.route or "")
            if trusted := request.headers.get("Authorization", "").startswith("Bearer "):
                self.workspace.check_token(request)
        except Refusal as refusal:
            code = "AuthorizationPermissionMismatch" if refusal.status == 403 else "InvalidAuthenticationInfo"
            return Refusal(refusal.status, code, refusal.message).storage_reply()
        try:
            reply = self.account.serve(request, trusted=trusted)
        except Exception:
            self.problems.append(f"{request}: the storage failed:\n{traceback.format_exc()}")
            reply = Refusal(501, "EmulatorFailed", traceback.format_exc()).storage_reply()
        if reply.status == 501:
            self.problems.append(f"{request}: {(reply.headers or {}).get('x-ms-error-code')}")
        request.body, request.upload = b"", None  # kept in the storage, not in the record
        return reply


def own_account(folder: Path | None = None) -> OwnAccount:
    """A storage account of the emulator's own, with a key that nobody else has."""
    key = base64.b64encode(secrets.token_bytes(64)).decode()
    return OwnAccount(f"emulated{secrets.token_hex(4)}", key, folder=folder)


def _blob_route(request: Request) -> str:
    """A name for a blob request, such as `blobs.put`, `blobs.list` or `blobs.put.metadata`."""
    parts = ("blobs", request.method.lower(), request.query.get("comp", ""))
    return "blobs.list" if request.query.get("comp") == "list" else ".".join(filter(None, parts))
