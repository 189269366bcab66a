"""What options are called on the screen and in a report is the same: the two that name them, beside each other."""

from app.pipeline.config import parse_config
from app.pipeline.presets import PRESETS
from app.services.option_words import text_of, title_of

SCRIPT = """
import { titleOf, valueText } from "WIDGETS/option_words.js";
answer(given.map(([name, value]) => [titleOf(name), valueText(name, value, [])]));
"""


def test_form_and_report_name_options_and_values_alike(node):
    configs = [parse_config({}), *(parse_config(preset.values) for preset in PRESETS)]
    given = [
        (name, value) for config in configs for name, value in config.model_dump(mode="json").items() if name != "model"
    ]
    given += [("augmentation", [{"name": name} for name in "abc"]), ("phases", [{"train": "heads", "epochs": 2}])]
    assert node(SCRIPT, given) == [[title_of(name), text_of(name, value)] for name, value in given]
