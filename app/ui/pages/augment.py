"""The Augment page: the chain and its live preview, a widget of its own that talks to the REST routes."""

import gradio as gr

from app.services.context import Services


def build(services: Services) -> None:
    """Put the widget on the page; it reads the project and the image from the address."""
    gr.HTML("<anchorage-augment></anchorage-augment>", apply_default_css=False)
