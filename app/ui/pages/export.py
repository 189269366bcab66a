"""The Export page: a widget of its own that talks to the REST routes."""

import gradio as gr

from app.services.context import Services


def build(services: Services) -> None:
    """Put the export widget on the page; it reads the project from the address."""
    gr.HTML("<anchorage-export></anchorage-export>", apply_default_css=False)
