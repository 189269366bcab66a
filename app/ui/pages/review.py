"""The Review page: predictions over ground truth, a widget of its own that talks to the REST routes."""

import gradio as gr

from app.services.context import Services


def build(services: Services) -> None:
    """Put the viewer on the page; it reads the project, the run and the prediction set from the address."""
    gr.HTML("<anchorage-review></anchorage-review>", apply_default_css=False)
