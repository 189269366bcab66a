"""The model picker of the Train page in a browser: the table, cards read from live models, names that do not exist."""

import pytest

from app.store import timings
from tests.services.review_project import make_review_project

ROW = ".model-picker-dialog [data-model={}]"


@pytest.fixture(scope="module")
def project(app_server):
    made = make_review_project(app_server.workspace)
    timing = {"train_s": 0.52, "predict_s": 0.21, "image_size": 320, "device": "cpu, float32", "measured_at": 1.0}
    timings.keep(made.services.workspace, {"model": "fasterrcnn_resnet34_fpn", **timing})
    return made


@pytest.fixture
def picker(page, project):
    page.set_default_timeout(90_000)  # the first card waits for the helper process
    page.goto(f"/train?project={project.slug}")
    page.wait_for_selector("anchorage-train[data-ready=true]")
    page.click("#option-model")
    page.wait_for_selector(".model-picker-dialog[data-state=ready]")
    return page


def test_models_stand_by_rising_size_with_what_was_measured(picker):
    sizes = [
        float(text.split()[0]) for text in picker.locator(".model-picker-list tbody td:nth-child(2)").all_inner_texts()
    ]
    assert sizes == sorted(sizes)
    assert len(sizes) == 23
    assert "0.52" in picker.locator(ROW.format("fasterrcnn_resnet34_fpn")).inner_text()
    box = picker.locator(".model-picker-dialog").bounding_box()
    assert box["y"] >= 0
    assert box["y"] + box["height"] <= 720


def test_chosen_model_shows_its_card_and_goes_into_the_form(picker):
    picker.click(ROW.format("fasterrcnn_swin_t_fpn"))
    picker.wait_for_selector(".model-card[data-model=fasterrcnn_swin_t_fpn]")
    card = picker.locator(".model-card").inner_text()
    assert "44,759,527 parameters, all trained" in card
    picker.click("[data-action=done]")
    assert picker.locator(".model-picker-dialog").count() == 0
    assert picker.get_attribute("#option-model", "data-model") == "fasterrcnn_swin_t_fpn"


def test_unknown_name_of_timm_is_refused_in_the_form(picker):
    picker.fill(".model-picker-other input", "resnet5o")
    picker.press(".model-picker-other input", "Enter")
    picker.wait_for_selector(".model-picker-card[data-state=problem]")
    assert "did you mean timm/resnet" in picker.locator(".model-picker-card").inner_text()
    picker.wait_for_selector("form[data-problems='1']")
    assert "did you mean" in picker.locator("[data-option=model]").inner_text()
