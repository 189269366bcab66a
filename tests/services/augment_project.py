"""A picture with a box and a crowd in a project, for the tests of augmentation."""

import hashlib

from app.records import Annotation, NewImage
from app.services.context import Services
from app.store import annotations, categories, images


def put_image(services: Services, slug: str, content: bytes, problem: str = "") -> int:
    """Store 80 x 60 px PNG bytes as an image of class 11; returns its id."""
    sha256 = hashlib.sha256(content + problem.encode()).hexdigest()
    path = services.files(slug).image(sha256, "png")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    with services.database(slug).write() as db:
        image_id = images.insert(db, NewImage("a.png", sha256, "png", 80, 60, "train", "a", 0, problem=problem))
        if not categories.all_of(db):
            categories.insert(db, "cat", category_id=11)
        boxes = [(0, (0, 10, 20, 30), False), (0, (40, 0, 80, 60), True)]
        annotations.insert_many(db, [Annotation(n, image_id, 11, box, crowd) for n, box, crowd in boxes])
    return image_id
