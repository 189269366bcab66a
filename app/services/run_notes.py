"""What people write about a run: hypothesis, setup, results, conclusion. Kept in the run's folder and gone with it."""

import orjson

from app.errors import BadRequest
from app.services.context import Services
from app.store import runs
from app.store.files import replacing

PARTS = ("hypothesis", "setup", "results", "conclusion")
MAX_LENGTH = 10_000
_FILE_NAME = "notes.json"


def get_notes(services: Services, slug: str, run_id: int) -> dict[str, str]:
    """The notes of a run by part, "" for what nobody wrote; raises NotFound."""
    runs.get_run(services.database(slug), run_id)
    path = services.files(slug).run(run_id) / _FILE_NAME
    written = orjson.loads(path.read_bytes()) if path.is_file() else {}
    return {part: str(written.get(part, "")) for part in PARTS}


def set_notes(services: Services, slug: str, run_id: int, changes: dict[str, str]) -> dict[str, str]:
    """Replace the given parts, leave the others, and return all; raises NotFound, BadRequest."""
    for part, text in changes.items():
        if part not in PARTS:
            raise BadRequest(f"A run's notes have the parts {', '.join(PARTS)}; got {part!r}.")
        if len(text) > MAX_LENGTH:
            raise BadRequest(f"The {part} may have {MAX_LENGTH} characters, got {len(text)}.")
    notes = get_notes(services, slug, run_id) | {part: text.strip() for part, text in changes.items()}
    if not changes:
        return notes
    with replacing(services.files(slug).run(run_id) / _FILE_NAME) as path:
        path.write_bytes(orjson.dumps(notes, option=orjson.OPT_INDENT_2))
    return notes
