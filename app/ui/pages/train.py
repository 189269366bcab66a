"""The Train page: start runs and watch them live, a widget of its own that talks to the REST routes."""

import gradio as gr

from app.services.context import Services


def build(services: Services) -> None:
    """Put the widget on the page; it reads the project and the runs to show from the address."""
    gr.HTML("<anchorage-train></anchorage-train>", apply_default_css=False)
