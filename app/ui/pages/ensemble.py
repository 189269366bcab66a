"""The Ensemble page: fuse checkpoints with one click and compare, a widget that talks to the REST routes."""

import gradio as gr

from app.services.context import Services


def build(services: Services) -> None:
    """Put the widget on the page; it reads the project, the run and the ensemble from the address."""
    gr.HTML("<anchorage-ensemble></anchorage-ensemble>", apply_default_css=False)
