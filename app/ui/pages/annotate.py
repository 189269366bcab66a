"""The Annotate page: the box editor, which is a widget of its own and talks to the REST routes."""

import gradio as gr

from app.services.context import Services


def build(services: Services) -> None:
    """Put the editor on the page; it reads the project and the image from the address."""
    gr.HTML("<anchorage-editor></anchorage-editor>", apply_default_css=False)
