"""The Projects page, the first one: a widget of its own that talks to the REST routes."""

import gradio as gr

from app.services.context import Services


def build(services: Services) -> None:
    """Put the projects widget on the page."""
    gr.HTML("<anchorage-projects></anchorage-projects>", apply_default_css=False)
