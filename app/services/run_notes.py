"""What people write about a run: hypothesis, setup, results, conclusion. Kept in the run's folder and gone with it."""

import threading

import orjson

from app.errors import BadRequest, Conflict
from app.services.context import Services
from app.store import runs
from app.store.files import replacing

PARTS = ("hypothesis", "setup", "results", "conclusion")
MAX_LENGTH = 10_000
_FILE_NAME = "notes.json"
_writing = threading.Lock()  # two tabs save at once; each must see what the other wrote


class StaleNotes(Conflict):
    """Somebody else wrote the same part first; ``current`` is what stands there now, by part."""

    def __init__(self, part: str, current: dict[str, str]) -> None:
        super().__init__(
            f"The {part} was changed elsewhere since it was opened here.", "Keep this text, or take the other one."
        )
        self.current = current


def get_notes(services: Services, slug: str, run_id: int) -> dict[str, str]:
    """The notes of a run by part, "" for what nobody wrote; raises NotFound."""
    runs.get_run(services.database(slug), run_id)
    path = services.files(slug).run(run_id) / _FILE_NAME
    written = orjson.loads(path.read_bytes()) if path.is_file() else {}
    return {part: str(written.get(part, "")) for part in PARTS}


def set_notes(
    services: Services, slug: str, run_id: int, changes: dict[str, str], known: dict[str, str] | None = None
) -> dict[str, str]:
    """Replace the given parts, leave the others, and return all.

    ``known``: what the writer believes to stand there, by part. Raises NotFound, BadRequest, and StaleNotes when a part
    that is to be replaced has become another than the known one.
    """
    for part, text in {**changes, **(known or {})}.items():
        if part not in PARTS:
            raise BadRequest(f"A run's notes have the parts {', '.join(PARTS)}; got {part!r}.")
        if len(text) > MAX_LENGTH:
            raise BadRequest(f"The {part} may have {MAX_LENGTH} characters, got {len(text)}.")
    with _writing:
        before = get_notes(services, slug, run_id)
        notes = before | {part: text.strip() for part, text in changes.items()}
        for part in changes:
            if known is not None and before[part] not in (known.get(part, before[part]), notes[part]):
                raise StaleNotes(part, before)
        if notes != before:
            with replacing(services.files(slug).run(run_id) / _FILE_NAME) as path:
                path.write_bytes(orjson.dumps(notes, option=orjson.OPT_INDENT_2))
    return notes
