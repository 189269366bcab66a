"""Object classes of a project, in the order of lists, number keys and colors."""

from typing import Any

from sqlite_utils import Database
from sqlite_utils.utils import sqlite3

from app.errors import BadRequest, Conflict, NotFound
from app.records import Category
from app.store.database import row_of, rows_of

MAX_NAME_LENGTH = 200


def all_of(db: Database) -> list[Category]:
    """Every class in order of position, with the number of its annotations."""
    sql = (
        "SELECT id, name, supercategory, position,"
        " (SELECT count(*) FROM annotation WHERE category_id = category.id) AS num_annotations"
        " FROM category ORDER BY position, id"
    )
    return [_category(row) for row in rows_of(db, sql)]


def get(db: Database, category_id: int) -> Category:
    """The class with this id; raises NotFound."""
    for category in all_of(db):
        if category.id == category_id:
            return category
    raise NotFound(f"There is no class {category_id} in this project.", "Reload the page to see the present classes.")


def insert(db: Database, name: str, *, category_id: int | None = None, supercategory: str = "") -> Category:
    """Add a class after the others; its id is the next free one (at least 1) unless given.

    Raises BadRequest for a name that is empty or too long, Conflict when the name or id is taken.
    """
    name = checked_name(name)
    row = row_of(db, "SELECT coalesce(max(id), 0) + 1, count(*) FROM category")
    new_id = int(row[0]) if category_id is None else int(category_id)
    try:
        db.execute(
            "INSERT INTO category (id, name, supercategory, position) VALUES (?, ?, ?, ?)",
            [new_id, name, supercategory, int(row[1])],
        )
    except sqlite3.IntegrityError as error:
        raise _taken(name, new_id) from error
    return Category(new_id, name, supercategory, int(row[1]))


def rename(db: Database, category_id: int, name: str) -> Category:
    """Give a class another name; raises BadRequest, Conflict (name taken) or NotFound."""
    name = checked_name(name)
    try:
        cursor = db.execute("UPDATE category SET name = ? WHERE id = ?", [name, category_id])
    except sqlite3.IntegrityError as error:
        raise _taken(name, category_id) from error
    if cursor.rowcount == 0:
        raise NotFound(f"There is no class {category_id} in this project.", "Reload the page.")
    return get(db, category_id)


def checked_name(name: str) -> str:
    """The name without surrounding blanks; raises BadRequest when it is empty, too long or has control characters."""
    name = name.strip()
    if not 1 <= len(name) <= MAX_NAME_LENGTH or not name.isprintable():
        raise BadRequest(
            f"A class name must have 1 to {MAX_NAME_LENGTH} printable characters, got {name[:40]!r}.",
            "Choose another name.",
        )
    return name


def _taken(name: str, category_id: int) -> Conflict:
    return Conflict(f"The class name {name!r} or the id {category_id} is already taken.", "Choose another name.")


def _category(row: Any) -> Category:
    return Category(**dict(row))
