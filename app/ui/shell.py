"""The frame of the screen: the pages in their order, what the browser loads on each, Gradio's settings."""

import json
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import NamedTuple

import gradio as gr

from app.services.context import Services
from app.ui.pages import annotate, audit, augment, compare, data, ensemble, export, projects, review, train

WIDGETS = Path(__file__).parent / "widgets"
CONCURRENCY = 8  # of each handler over all tabs; Gradio's default is 1
UPLOADS_KEPT_S = (3600, 24 * 3600)  # looked through each hour, deleted after a day


class Page(NamedTuple):
    """A page: its path, its name in the bar, and the function that adds its components."""

    path: str
    title: str
    build: Callable[[Services], None]


PAGES = (
    Page("/", "Projects", projects.build),
    Page("/data", "Data", data.build),
    Page("/annotate", "Annotate", annotate.build),
    Page("/augment", "Augment", augment.build),
    Page("/train", "Train", train.build),
    Page("/review", "Review", review.build),
    Page("/compare", "Compare", compare.build),
    Page("/audit", "Audit", audit.build),
    Page("/ensemble", "Ensemble", ensemble.build),
    Page("/export", "Export", export.build),
)


def create_demo(services: Services) -> gr.Blocks:
    """All pages as one Gradio app, to be mounted with :func:`mount_settings`."""
    first, *others = PAGES
    with gr.Blocks(title="Anchorage", analytics_enabled=False, delete_cache=UPLOADS_KEPT_S) as demo:
        first.build(services)
    for page in others:
        with demo.route(page.title, page.path):
            page.build(services)
    return demo.queue(default_concurrency_limit=CONCURRENCY)


def head(widgets_folder: str) -> str:
    """What goes into each page's head: the style sheets, every widget's module, and the pages for the bar.

    ``widgets_folder`` is the address of the widgets' files.
    """
    pages = json.dumps([{"path": page.path, "title": page.title} for page in PAGES])
    sheets = sorted(WIDGETS.glob("*.css"), key=lambda path: (path.name != "theme.css", path.name))
    modules = sorted(WIDGETS.glob("*.js"), key=lambda path: (path.name != "nav.js", path.name))
    return "\n".join(
        [
            f'<meta name="anchorage-pages" content="{escape(pages)}">',
            *(f'<link rel="stylesheet" href="{widgets_folder}/{path.name}">' for path in sheets),
            *(f'<script type="module" src="{widgets_folder}/{path.name}"></script>' for path in modules),
        ]
    )
