"""Gradio's theme in our colors: system fonts (nothing is fetched), and the variables of ``widgets/theme.css``."""

import gradio as gr
from gradio.themes.utils import colors, sizes

FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "Liberation Sans", "Arial", "sans-serif")
MONO = ("ui-monospace", "Cascadia Mono", "SF Mono", "Menlo", "Consolas", "Liberation Mono", "monospace")

# Gradio variable -> ours. Our variables change with the mode by themselves, so light and dark get the same value.
VARIABLES = {
    "body_background_fill": "--a-bg",
    "body_text_color": "--a-text",
    "body_text_color_subdued": "--a-muted",
    "background_fill_primary": "--a-surface",
    "background_fill_secondary": "--a-bg",
    "border_color_primary": "--a-border",
    "border_color_accent": "--a-accent",
    "color_accent_soft": "--a-accent-soft",
    "link_text_color": "--a-accent",
    "link_text_color_hover": "--a-accent",
    "link_text_color_active": "--a-accent",
    "link_text_color_visited": "--a-accent",
    "block_background_fill": "--a-surface",
    "block_border_color": "--a-border",
    "block_label_background_fill": "--a-surface",
    "block_label_text_color": "--a-muted",
    "block_title_text_color": "--a-text",
    "block_info_text_color": "--a-muted",
    "panel_background_fill": "--a-surface",
    "panel_border_color": "--a-border",
    "accordion_text_color": "--a-text",
    "checkbox_background_color": "--a-surface",
    "checkbox_background_color_selected": "--a-accent",
    "checkbox_border_color": "--a-border",
    "checkbox_border_color_focus": "--a-accent",
    "checkbox_border_color_selected": "--a-accent",
    "checkbox_label_background_fill": "--a-surface",
    "checkbox_label_background_fill_hover": "--a-raised",
    "checkbox_label_background_fill_selected": "--a-accent-soft",
    "checkbox_label_text_color": "--a-text",
    "checkbox_label_text_color_selected": "--a-text",
    "input_background_fill": "--a-surface",
    "input_background_fill_focus": "--a-surface",
    "input_border_color": "--a-border",
    "input_border_color_focus": "--a-accent",
    "input_placeholder_color": "--a-muted",
    "slider_color": "--a-accent",
    "table_border_color": "--a-border",
    "table_even_background_fill": "--a-surface",
    "table_odd_background_fill": "--a-bg",
    "table_text_color": "--a-text",
    "button_primary_background_fill": "--a-accent",
    "button_primary_background_fill_hover": "--a-accent",
    "button_primary_border_color": "--a-accent",
    "button_primary_text_color": "--a-on-accent",
    "button_secondary_background_fill": "--a-surface",
    "button_secondary_background_fill_hover": "--a-raised",
    "button_secondary_border_color": "--a-border",
    "button_secondary_text_color": "--a-text",
    "button_cancel_background_fill": "--a-surface",
    "button_cancel_background_fill_hover": "--a-raised",
    "button_cancel_border_color": "--a-danger",
    "button_cancel_text_color": "--a-danger",
}


def build_theme() -> gr.themes.Base:
    """The theme handed to ``mount_gradio_app``; its fonts are plain names of installed ones."""
    theme = gr.themes.Base(
        primary_hue=colors.cyan,
        neutral_hue=colors.slate,
        font=list(FONT),
        font_mono=list(MONO),
        text_size=sizes.text_sm,
        spacing_size=sizes.spacing_md,
        radius_size=sizes.radius_md,
    )
    both_modes = {
        name: f"var({variable})"
        for base, variable in VARIABLES.items()
        for name in (base, f"{base}_dark")
        if hasattr(theme, base)
    }
    return theme.set(**both_modes, block_label_text_weight="500", button_large_text_weight="500")
