"""Running the app: one per workspace, a free port, the browser opened when the server answers, a clean end."""

import json
import logging
import os
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from logging.handlers import RotatingFileHandler
from pathlib import Path

import uvicorn

from app.api.access import Access
from app.api.addresses import is_loopback, link, own_hosts
from app.errors import BadRequest, UserError
from app.jobs.locks import FileLock
from app.services import compiling, jobs
from app.services.context import Services
from app.store.files import Workspace, replacing

logger = logging.getLogger(__name__)

DEFAULT_PORT = 7860
NUM_PORTS_TRIED = 100
GRACE_S = 2  # open event streams of tabs are cut after this at Ctrl-C


@dataclass(frozen=True)
class ServeOptions:
    """What the command line says about serving; ``port`` None looks for a free one."""

    host: str = "127.0.0.1"
    port: int | None = None
    has_browser: bool = True


def serve(workspace: Workspace, options: ServeOptions, on_start: Callable[[Services], str] | None = None) -> int:
    """Serve the workspace until interrupted.

    ``on_start`` runs on a thread of its own once the server answers; it returns the page to open.
    A workspace that is already served is not served twice: the running app is named and opened instead. Returns the
    exit code.
    """
    access = Access(workspace)
    lock = FileLock(workspace.hidden("app.lock"))
    if not lock.acquire():
        return _point_to_running(workspace, access, options)
    workspace.hidden("app.json").unlink(missing_ok=True)  # of an app that died
    with lock, _listening(options) as listener:
        port = listener.getsockname()[1]
        with replacing(workspace.hidden("app.json")) as path:
            path.write_text(json.dumps({"pid": os.getpid(), "host": options.host, "port": port}))
        services = Services(workspace)
        jobs.resume_at_launch(services)
        jobs.watch_queue(services)
        server = _build_server(services, access, options.host, port)
        server.when_started = lambda: _welcome(services, access, options, port, on_start)
        return _run(server, listener)


def prepare_environment(workspace: Workspace) -> None:
    """Gradio reads these when it is imported: uploads stay in the workspace, nothing is reported to anybody."""
    os.environ["GRADIO_TEMP_DIR"] = str(workspace.hidden_folder("uploads"))
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"


def can_open_browser(environment: Mapping[str, str], platform: str) -> bool:
    """Whether a browser opened here would be in front of the person who started the app."""
    if any(environment.get(name) for name in ("CI", "SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY")):
        return False
    has_display = bool(environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY"))
    return has_display or platform in ("win32", "darwin")


class _Server(uvicorn.Server):
    """Uvicorn, telling when it accepts connections."""

    when_started: Callable[[], None]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            threading.Thread(target=self.when_started, name="welcome", daemon=True).start()


def _build_server(services: Services, access: Access, host: str, port: int) -> _Server:
    # After prepare_environment, which Gradio reads when it is imported.
    from app.ui.quick_start import import_gradio

    import_gradio()
    from app.api.app import build_app

    app = build_app(services, access=access, hosts=own_hosts(host, port), port=port)
    return _Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_S,
        )
    )


def _run(server: _Server, listener: socket.socket) -> int:
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:  # uvicorn raises the signal again once it has shut down
        _say("\nAnchorage has stopped. Training goes on without it; start it again to look.")
    return 0 if server.started else 1


def _listening(options: ServeOptions) -> socket.socket:
    """A bound socket; raises BadRequest when the asked port (or every one tried) is taken."""
    first = DEFAULT_PORT if options.port is None else options.port
    ports = range(first, first + (NUM_PORTS_TRIED if options.port is None else 1))
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    reason: OSError | None = None
    for port in ports:
        try:
            return socket.create_server((options.host, port), family=family)
        except OSError as error:
            reason = error
    raise BadRequest(
        f"Anchorage cannot listen on {options.host}, port {ports[0]}"
        f"{f' to {ports[-1]}' if len(ports) > 1 else ''}: {reason}.",
        "Choose another --port or --host.",
    )


def _welcome(
    services: Services,
    access: Access,
    options: ServeOptions,
    port: int,
    on_start: Callable[[Services], str] | None,
) -> None:
    _say(f"Anchorage is running. Open {link(options.host, port, access.mint_code())}")
    _say(f"Projects are kept in {services.workspace.root}. Ctrl-C stops the app, not the training.")
    if not is_loopback(options.host):
        _say("Other machines of this network can reach it, with such a link only. Each link works once.")
    page = ""
    if on_start is not None:
        _say("Making the demo project and starting a training on it …")
        try:
            page = on_start(services)
        except UserError as error:
            _say(str(error))
        else:
            _say(f"Watch the demo: {link(options.host, port, access.mint_code(), page)}")
    _open_browser(options, link(options.host, port, access.mint_code(), page))
    compiling.compile_ahead(services)


def _point_to_running(workspace: Workspace, access: Access, options: ServeOptions) -> int:
    path = workspace.hidden("app.json")
    holder = json.loads(path.read_text()) if path.is_file() else {}
    if "port" not in holder:
        _say(f"Another Anchorage is starting on {workspace.root}; try again in a moment.")
        return 1
    url = link(holder["host"], holder["port"], access.mint_code())
    _say(f"Anchorage already runs on {workspace.root} (process {holder['pid']}). Open {url}")
    _open_browser(options, link(holder["host"], holder["port"], access.mint_code()))
    return 0


def _open_browser(options: ServeOptions, url: str) -> None:
    if not options.has_browser or not can_open_browser(os.environ, sys.platform):
        return
    try:
        webbrowser.open(url)
    except webbrowser.Error as error:
        logger.warning("no browser could be opened: %s", error)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def log_to_file(path: Path) -> None:
    """Keep the app's log in rotating files; warnings go to the terminal too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    to_file = RotatingFileHandler(path, maxBytes=2_000_000, backupCount=3, encoding="utf-8")
    to_terminal = logging.StreamHandler()
    to_terminal.setLevel(logging.WARNING)
    logging.basicConfig(
        level=logging.INFO, handlers=[to_file, to_terminal], format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
