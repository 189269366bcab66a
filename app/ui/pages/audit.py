"""The Audit page: labels that a sure model disagrees with, a widget of its own that talks to the REST routes."""

import gradio as gr

from app.services.context import Services


def build(services: Services) -> None:
    """Put the widget on the page; it reads the project, the run, the split and the filters from the address."""
    gr.HTML("<anchorage-audit></anchorage-audit>", apply_default_css=False)
