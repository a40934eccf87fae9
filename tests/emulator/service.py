"""The emulator: takes requests from the way in, records them, applies faults, and lets the services answer."""

from __future__ import annotations

import threading
import traceback
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import trustme

from .assets import AssetRoutes
from .azurite import Azurite
from .blobs import Account
from .faults import Fault, Faults, Kind
from .history import HistoryRoutes
from .jobs import Job, JobRoutes
from .login import LoginRoutes
from .node import JobRun
from .routing import Route, Router
from .server import ProxyServer
from .state import Workspace
from .wire import Headers, Refusal, Reply, Request, new_request_id
from .workspace import WorkspaceRoutes


class Emulator:
    """Azure Machine Learning, as far as a training job needs it, on 127.0.0.1.

    `workspace` holds what the service has and allows, `requests` what arrived, `inject` puts faults in the way.
    Use it as a context manager; `assert_clean` raises for every request that the emulator did not know.
    """

    def __init__(self, azurite: Azurite, authority: trustme.CA) -> None:
        self.workspace = Workspace(azurite.account())
        self.requests: list[Request] = []
        """Every request, in order of arrival."""
        self.latency: float = 0.0
        """Seconds added to each answer."""
        self.problems: list[str] = []
        """What no test may cause unseen: unknown hosts and routes, bodies of a wrong shape, errors in the emulator."""
        self.assets = AssetRoutes(self.workspace)
        self.jobs = JobRoutes(self.workspace, self.assets)
        services = (
            WorkspaceRoutes(self.workspace),
            self.assets,
            self.jobs,
            HistoryRoutes(self.workspace, self.jobs),
            LoginRoutes(self.workspace),
        )
        self._router = Router(self.workspace, services)
        self._runs: list[JobRun] = []
        self._faults = Faults()
        self._lock = threading.Lock()
        self._no_delays = threading.Event()
        self._authority = authority
        for store in self.workspace.datastores.values():
            self.account.create_container(store.container)
        self._server = ProxyServer(self._serve, authority)

    @property
    def account(self) -> Account:
        """The workspace's storage account in Azurite."""
        return self.workspace.account

    def job(self, name: str) -> Job:
        """A job that was submitted."""
        return self.jobs.named(name)

    def start(self, name: str, *, env: Mapping[str, str] | None = None) -> JobRun:
        """Run a submitted job on this machine, in the background; `env` stands for what its image would set."""
        run = JobRun(self.job(name), self.assets, env=env)
        self._runs.append(run)
        return run.start()

    def run(self, name: str, *, env: Mapping[str, str] | None = None, timeout: float = 60) -> JobRun:
        """Run a submitted job on this machine, to its end."""
        run = self.start(name, env=env)
        run.wait(timeout)
        return run

    def run_what_is_submitted(self, *, env: Mapping[str, str] | None = None) -> None:
        """From now on every new job starts at once, in the background."""
        self.jobs.on_submit = lambda job: self.start(job.name, env=env)

    def play(self, *statuses: str) -> None:
        """From now on every new job walks through these statuses, one at each look that a client takes."""
        self.jobs.on_submit = lambda job: job.script.extend(statuses)

    def __enter__(self) -> Emulator:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end_delays()
        for run in self._runs:
            run.cancel()
        for run in self._runs:
            run.wait()
        self._server.stop()

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

    def certify_as(self, host: str) -> None:
        """From now on be somebody in between: the certificates are of another host than the one that is asked."""
        self._server.certified_as = host

    def forget(self) -> None:
        """Start counting anew: no requests, no faults to come."""
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

    def _serve(self, method: str, host: str, target: str, headers: Headers, body: bytes) -> Reply | None:
        to_storage = host == self.account.host
        with self._lock:
            request = Request(len(self.requests), method, host, target, headers, body)
            found = None if to_storage else self._router.find(request)
            request.route = _blob_route(request) if to_storage else found[0].name if found else None
            fault = self._faults.take(request)
            request.fault = str(fault) if fault else None
            self.requests.append(request)
        self._no_delays.wait(self.latency + (fault.seconds if fault else 0.0))
        reply: Reply | None = None
        if fault and fault.kind is Kind.ANSWER:
            reply = fault.reply(storage=to_storage)
        elif not fault or fault.kind is not Kind.RESET_BEFORE:
            reply = self._to_azurite(request) if to_storage else self._answer(request, found)
        if reply is None or (fault and fault.kind is Kind.RESET_AFTER):
            return None
        reply.headers.setdefault("x-ms-request-id", new_request_id())
        request.status, request.bytes_out = reply.status, len(reply.encoded())
        return reply

    def _answer(self, request: Request, found: tuple[Route, dict[str, str]] | None) -> Reply:
        if found is None:
            self.problems.append(str(request))
            # 501, because the client's pipeline retries 500, 502, 503 and 504.
            return Refusal(501, "NotEmulated", f"the emulator has no route for {request}").reply()
        try:
            return self._router.call(found[0], request, found[1])
        except Refusal as refusal:
            if refusal.code == "InvalidWireBody":
                self.problems.append(f"{request}: {refusal}")
            return refusal.reply()
        except Exception:
            self.problems.append(f"{request}: the emulator failed:\n{traceback.format_exc()}")
            return Refusal(501, "EmulatorFailed", traceback.format_exc()).reply()

    def _to_azurite(self, request: Request) -> Reply:
        """Blob requests go to Azurite as they are, but for a bearer token: Azurite takes those over TLS only."""
        body, request.body = request.body, b""  # kept in Azurite, not in the record
        headers, target = dict(request.headers.items()), request.target
        try:
            self.workspace.check_permission(request.route or "")
            if request.headers.get("Authorization", "").startswith("Bearer "):
                self.workspace.check_token(request)
                headers = {name: value for name, value in headers.items() if name.lower() != "authorization"}
                target += ("&" if "?" in target else "?") + self.account.account_sas()
        except Refusal as refusal:
            code = "AuthorizationPermissionMismatch" if refusal.status == 403 else "InvalidAuthenticationInfo"
            return Refusal(refusal.status, code, refusal.message).storage_reply()
        reply = self.account.forward(request.method, target, headers, body)
        if reply.status == 206 and not reply.body:
            # Azure has no empty ranges; Azurite 3.35 answers 206 for one that begins where the blob ends.
            message = "The range specified is invalid for the current size of the resource."
            size = reply.headers.get("content-range", "").rpartition("/")[2]
            return Refusal(416, "InvalidRange", message, headers={"Content-Range": f"bytes */{size}"}).storage_reply()
        return reply


def _blob_route(request: Request) -> str:
    """A name for a blob request, such as `blobs.put`, `blobs.list` or `blobs.put.metadata`."""
    parts = ("blobs", request.method.lower(), request.query.get("comp", ""))
    return "blobs.list" if request.query.get("comp") == "list" else ".".join(filter(None, parts))
