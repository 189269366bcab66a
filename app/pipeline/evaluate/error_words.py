"""What kinds of errors and of suspects are called for people: in reports and on the command line, as on the screen.

``error_kinds.js``, ``review_errors.js`` and ``suspects.js`` have the same words with what only the screen needs;
``tests/ui/test_error_words.py`` holds both to each other. JSON has the names that stand as keys here.
"""

KIND_TITLES = {
    "classification": "Wrong class",
    "localization": "Poor place",
    "both": "Class and place",
    "duplicate": "Duplicate",
    "background": "Background",
    "missed": "Missed",
}
TOTAL_TITLES = {"false_positives": "All false positives", "false_negatives": "All false negatives"}
# Of one suspect, and of several.
SUSPECT_TITLES = {
    "missing_box": ("Missing box", "Missing boxes"),
    "wrong_class": ("Wrong class", "Wrong classes"),
    "loose_box": ("Loose box", "Loose boxes"),
}


def count_suspects(kind: str, count: int) -> str:
    """A number of suspects in words: "1 missing box", "3 loose boxes"."""
    one, several = SUSPECT_TITLES[kind]
    return f"{count} {(one if count == 1 else several).lower()}"
