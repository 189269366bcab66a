"""One FastAPI app: our routes first, then Gradio's pages mounted at the root, the guard around everything."""

import importlib
import importlib.util
from pathlib import Path
from urllib.parse import parse_qs, urlencode

import gradio as gr
from anyio import to_thread
from fastapi import FastAPI
from starlette.responses import RedirectResponse

from app.api import failures, widgets
from app.api.access import Access
from app.api.guard import AsgiApp, Guard, Message, Receive, Send
from app.services import projects
from app.services.context import Services
from app.ui import shell
from app.ui.theme import build_theme

MAX_UPLOAD = "20gb"  # what the importer takes
ROUTERS = tuple(
    importlib.import_module(f"app.api.routes.{name}").build_router
    for name in ("projects", "data", "annotations", "augment", "runs", "review", "exports")
    if importlib.util.find_spec("app.api.routes") and importlib.util.find_spec(f"app.api.routes.{name}")
)


def build_app(services: Services, *, access: Access, hosts: frozenset[str], port: int) -> AsgiApp:
    """The whole web app on a workspace, ready for an ASGI server.

    Args:
        services: the workspace and its projects.
        access: the secret and the links that let a browser in.
        hosts: the exact Host headers to answer, with the port: see :func:`own_hosts`.
        port: where the server listens; it names the cookie.
    """
    app = FastAPI(title="Anchorage", docs_url=None, redoc_url=None, openapi_url=None)
    failures.install(app)
    app.include_router(widgets.build_router())
    for build_router in ROUTERS:
        app.include_router(build_router(services))
    gr.mount_gradio_app(
        app,
        shell.create_demo(services),
        path="/",
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        max_file_size=MAX_UPLOAD,
        pwa=False,
        favicon_path=str(Path(shell.WIDGETS) / "anchor.svg"),
        theme=build_theme(),
        head=shell.head(),
    )
    return Guard(OpenProject(app, services), access, hosts, port)


class OpenProject:
    """A page opened without a project, or with one that is gone, goes to the last opened one or the front page."""

    def __init__(self, app: AsgiApp, services: Services) -> None:
        self.app = app
        self.services = services
        self.paths = {page.path for page in shell.PAGES} - {"/"}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "GET" and scope["path"].rstrip("/") in self.paths:
            query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
            target = await to_thread.run_sync(self._elsewhere, scope["path"], query)
            if target:
                return await RedirectResponse(target, status_code=303)(scope, receive, send)
        return await self.app(scope, receive, send)

    def _elsewhere(self, path: str, query: dict[str, list[str]]) -> str:
        slug = query.get("project", [""])[0]
        if slug:
            return "" if slug in self.services.workspace.slugs() else f"/?{urlencode({'missing': slug})}"
        listed = [project["slug"] for project in projects.list_projects(self.services) if not project.get("problem")]
        return f"{path}?{urlencode({'project': listed[0], **{k: v[0] for k, v in query.items()}})}" if listed else "/"
