"""The Data page: images with their boxes, figures and the import report, a widget that talks to the REST routes."""

import gradio as gr

from app.services.context import Services


def build(services: Services) -> None:
    """Put the gallery on the page; it reads the project and the filters from the address."""
    gr.HTML("<anchorage-gallery></anchorage-gallery>", apply_default_css=False)
