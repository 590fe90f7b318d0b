"""The operators' pages: health, readiness, metrics, and what is running. No authentication: bind it to loopback."""

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from mcphost.decisions.guard import Guard
from mcphost.errors import BadHttp
from mcphost.telemetry.metrics import CONTENT_TYPE, Metrics
from mcphost.workers.pool import Pool
from mcphost.workers.supervisor import WorkerSet


class GuardedApp:
    """An application behind a guard, so that no web page reaches it by rebinding its own name."""

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self._app = app
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        app = self._app
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            try:
                self._guard.check(headers.get("host"), headers.get("origin"))
            except BadHttp as error:
                app = JSONResponse({"error": str(error)}, error.status)
        await app(scope, receive, send)


def admin_app(
    pool: Pool,
    metrics: Metrics,
    is_ready: Callable[[], bool],
    guard: Guard,
    layers: Callable[[], Awaitable[dict[str, object]]],
) -> GuardedApp:
    """The application of the admin listener.

    `/healthz` says that the process runs; `/readyz` that it takes calls (503 while starting and while
    stopping); `/servers` shows each worker set with its state, its trouble and the isolation in force; `/layers`
    what of the sandbox this machine has, as `layers` gives it.
    """

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(_: Request) -> Response:
        ready = is_ready()
        failed = sorted({each.identity.server for each in pool.sets() if each.state == "failed"})
        body = {"status": "ready" if ready else "not ready", "failed": failed}
        return JSONResponse(body, 200 if ready else 503)

    async def metrics_page(_: Request) -> Response:
        return Response(metrics.render(), media_type=None, headers={"content-type": CONTENT_TYPE})

    async def servers(_: Request) -> Response:
        return JSONResponse({"workers": [_shown(each) for each in pool.sets()]})

    async def layers_page(_: Request) -> Response:
        return JSONResponse(await layers())

    pages = Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics_page),
            Route("/servers", servers),
            Route("/layers", layers_page),
        ]
    )
    return GuardedApp(pages, guard)


def _shown(workers: WorkerSet) -> dict[str, object]:
    shown: dict[str, object] = {
        "server": workers.identity.server,
        "tenant": workers.identity.tenant or None,
        "state": workers.state,
        "trouble": workers.trouble or None,
        "scope": workers.settings.scope,
        "spares": len(workers.spares),
        "leased": workers.leases.shown(),
    }
    worker = workers.worker
    if worker is not None:
        shown |= {
            "pid": worker.pid,
            "era": worker.facts.era,
            "version": worker.facts.version,
            "tools": sorted(worker.tools),
            "inFlight": worker.in_flight,
            "layers": worker.layers,
            "deniedCalls": worker.uncounted or "counted",
        }
    return shown
