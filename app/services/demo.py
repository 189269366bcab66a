"""A project to look around with: a made-up dataset, imported like any other, and a short training on it."""

import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlencode

from app.errors import NotFound
from app.pipeline.data.demo import write_demo_export
from app.services import augmenting, importing, projects, training
from app.services.context import Services

logger = logging.getLogger(__name__)

NAME = "Demo: blood smears"
RUN_NAME = "First look"
# Small images and few sampled regions: the loss falls within seconds of the start even on a laptop's processor.
OPTIONS = {
    "model": "fasterrcnn_resnet18_fpn",
    "pretrained": "none",
    "image_size": 192,
    "batch_size": 4,
    "epochs": 12,
    "roi_batch_size": 32,
}
AUGMENTATION = [{"name": "HorizontalFlip", "probability": 0.5}, {"name": "VerticalFlip", "probability": 0.5}]


def start_demo(services: Services) -> str:
    """Make the demo project if it is not there, start a training if it has none; returns the page that shows it."""
    try:
        slug = projects.find_project(services, NAME)
    except NotFound:
        with TemporaryDirectory(dir=services.workspace.hidden_folder("demo")) as folder:
            export = write_demo_export(Path(folder) / "blood-smears")
            slug, _ = importing.import_as_new_project(services, NAME, export)
        augmenting.save(services, slug, AUGMENTATION)
        logger.info("made the demo project %s", slug)
    projects.open_project(services, slug)
    runs = training.list_runs(services, slug)
    run = runs[0] if runs else training.start_run(services, slug, OPTIONS, name=RUN_NAME)
    return f"/train?{urlencode({'project': slug, 'run': run.id})}"
