"""One FastAPI app: our routes first, then Gradio's pages mounted at the root, the guard around everything."""

import warnings
from pathlib import Path
from urllib.parse import parse_qs, urlencode

import gradio as gr
from anyio import to_thread
from fastapi import FastAPI
from starlette.responses import RedirectResponse

from app.api import failures, widgets
from app.api.access import Access
from app.api.guard import AsgiApp, Guard, Message, Receive, Send
from app.api.routes import (
    annotations,
    audit,
    augment,
    compare,
    data,
    diagnosis,
    ensembles,
    exports,
    models,
    projects,
    review,
    runs,
    sweep,
)
from app.services import projects as project_list
from app.services.context import Services
from app.ui import shell
from app.ui.theme import build_theme

MAX_UPLOAD = "20gb"  # what the importer takes
ROUTES = (
    *(projects, data, annotations, augment, runs, models),
    *(review, diagnosis, compare, audit, ensembles, sweep, exports),
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
    for module in ROUTES:
        app.include_router(module.build_router(services))
    with warnings.catch_warnings():
        # It says that it turns server-side rendering off for several pages; it was never on.
        warnings.filterwarnings("ignore", message="SSR mode is not supported")
        _mount_pages(app, services)
    return Guard(OpenProject(app, services), access, hosts, port)


def _mount_pages(app: FastAPI, services: Services) -> None:
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
        app_kwargs={"openapi_url": None},
        favicon_path=str(Path(shell.WIDGETS) / "anchor.svg"),
        theme=build_theme(),
        head=shell.head(f"/widgets/{widgets.widgets_version()}"),
    )


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
        listed = project_list.list_projects(self.services, with_sizes=False)
        usable = [project["slug"] for project in listed if not project.get("problem")]
        if not usable:
            return "/"
        return f"{path}?{urlencode({'project': usable[0], **{name: values[0] for name, values in query.items()}})}"
