"""The Compare page: two runs, checkpoints or ensembles beside each other, a widget that talks to the REST routes."""

import gradio as gr

from app.services.context import Services


def build(services: Services) -> None:
    """Put the widget on the page; it reads the project, the sides, the split and the view from the address."""
    gr.HTML("<anchorage-compare></anchorage-compare>", apply_default_css=False)
