"""The schema of project.db as named steps. A landed step is never edited: add one and raise SCHEMA_VERSION."""

from sqlite_utils import Database, Migrations

SCHEMA_VERSION = 5

migrations = Migrations("anchorage")


def migrate(db: Database) -> None:
    """Apply every missing step in one transaction and record the schema version.

    A table that others refer to can be rebuilt only while foreign keys are not looked at, so they are checked after.
    """
    db.execute("PRAGMA foreign_keys=OFF")
    db.execute("BEGIN IMMEDIATE")
    try:
        migrations.apply(db)
        broken = db.execute("PRAGMA foreign_key_check").fetchone()
        if broken is not None:
            raise RuntimeError(f"a row of {broken[0]} refers to a row of {broken[2]} that is not there")
        db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
    except BaseException:
        db.conn.rollback()
        raise
    db.conn.commit()
    db.execute("PRAGMA foreign_keys=ON")


@migrations()
def m0001_first_schema(db: Database) -> None:
    """Everything the first version keeps."""
    for statement in _FIRST_SCHEMA.split(";\n"):
        if statement.strip():
            db.execute(statement)


@migrations()
def m0002_jobs_that_go_on(db: Database) -> None:
    """Jobs can be paused, moved in the queue and go on after a death; a run knows whose numbers it has."""
    for statement in _JOBS_THAT_GO_ON.split(";\n"):
        if statement.strip():
            db.execute(statement)


@migrations()
def m0003_jobs_that_hang(db: Database) -> None:
    """A job that gives no sign of life says so, in words."""
    db.execute("ALTER TABLE job ADD COLUMN hung TEXT NOT NULL DEFAULT ''")


@migrations()
def m0004_ignored_suspects(db: Database) -> None:
    """What somebody looked at in a label audit and found right as it is."""
    for statement in _IGNORED_SUSPECTS.split(";\n"):
        if statement.strip():
            db.execute(statement)


@migrations()
def m0005_time_of_predictions(db: Database) -> None:
    """What an image took while predictions were made, and on which device."""
    db.execute("ALTER TABLE prediction_set ADD COLUMN ms_per_image REAL")
    db.execute("ALTER TABLE prediction_set ADD COLUMN device TEXT NOT NULL DEFAULT ''")


_IGNORED_SUSPECTS = """
CREATE TABLE ignored_suspect (
    id INTEGER PRIMARY KEY,
    image_id INTEGER NOT NULL REFERENCES image (id) ON DELETE CASCADE,
    kind TEXT NOT NULL CHECK (kind IN ('missing_box', 'wrong_class', 'loose_box')),
    predicted_id INTEGER NOT NULL REFERENCES category (id),
    labeled_id INTEGER REFERENCES category (id),
    x1 REAL NOT NULL,
    y1 REAL NOT NULL,
    x2 REAL NOT NULL CHECK (x2 > x1),
    y2 REAL NOT NULL CHECK (y2 > y1),
    score REAL NOT NULL,
    created_at REAL NOT NULL
) STRICT;
CREATE INDEX ignored_suspect_image ON ignored_suspect (image_id);
"""


_JOBS_THAT_GO_ON = """
CREATE TABLE job_new (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'queued'
        CHECK (state IN ('queued', 'running', 'stopping', 'paused', 'done', 'failed', 'cancelled', 'interrupted')),
    attempt INTEGER NOT NULL DEFAULT 0,
    payload TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(payload)),
    progress TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(progress)),
    result TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(result)),
    error TEXT NOT NULL DEFAULT '',
    pid INTEGER,
    stop_as TEXT NOT NULL DEFAULT '' CHECK (stop_as IN ('', 'cancelled', 'paused')),
    rank REAL NOT NULL,
    num_deaths INTEGER NOT NULL DEFAULT 0,
    death_step INTEGER,
    gpu TEXT NOT NULL DEFAULT '',
    created_at REAL NOT NULL,
    started_at REAL,
    ended_at REAL,
    heartbeat_at REAL
) STRICT;
INSERT INTO job_new (id, kind, state, attempt, payload, progress, result, error, pid, stop_as, rank, created_at,
    started_at, ended_at, heartbeat_at)
SELECT id, kind, state, attempt, payload, progress, result, error, pid,
    CASE is_stop_requested WHEN 1 THEN 'cancelled' ELSE '' END, created_at, created_at, started_at, ended_at,
    heartbeat_at
FROM job;
DROP TABLE job;
ALTER TABLE job_new RENAME TO job;
CREATE INDEX job_state ON job (state, id);
ALTER TABLE run ADD COLUMN numbers_attempt INTEGER NOT NULL DEFAULT 0;
"""

_FIRST_SCHEMA = """
CREATE TABLE setting (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL CHECK (json_valid(value))
) STRICT, WITHOUT ROWID;

CREATE TABLE category (
    id INTEGER PRIMARY KEY CHECK (id >= 0),
    name TEXT NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 200),
    supercategory TEXT NOT NULL DEFAULT '',
    position INTEGER NOT NULL CHECK (position >= 0)
) STRICT;

CREATE TABLE image (
    id INTEGER PRIMARY KEY,
    file_name TEXT NOT NULL,
    sha256 TEXT NOT NULL CHECK (length(sha256) = 64),
    extension TEXT NOT NULL CHECK (extension IN ('jpg', 'png', 'webp', 'bmp', 'tiff')),
    width INTEGER NOT NULL CHECK (width > 0),
    height INTEGER NOT NULL CHECK (height > 0),
    split TEXT NOT NULL CHECK (split IN ('train', 'valid', 'test')),
    source_key TEXT NOT NULL,
    coco_id INTEGER NOT NULL,
    extra TEXT CHECK (extra IS NULL OR json_valid(extra)),
    rotation INTEGER NOT NULL DEFAULT 0 CHECK (rotation IN (0, 90, 180, 270)),
    needs_rendering INTEGER NOT NULL DEFAULT 0 CHECK (needs_rendering IN (0, 1)),
    problem TEXT NOT NULL DEFAULT '',
    is_empty_on_purpose INTEGER NOT NULL DEFAULT 0 CHECK (is_empty_on_purpose IN (0, 1)),
    revision INTEGER NOT NULL DEFAULT 0,
    num_annotations INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX image_split ON image (split, id);
CREATE INDEX image_source ON image (source_key);
CREATE INDEX image_sha256 ON image (sha256);

CREATE TABLE annotation (
    id INTEGER PRIMARY KEY,
    image_id INTEGER NOT NULL REFERENCES image (id) ON DELETE CASCADE,
    category_id INTEGER NOT NULL REFERENCES category (id),
    x1 REAL NOT NULL CHECK (x1 >= 0),
    y1 REAL NOT NULL CHECK (y1 >= 0),
    x2 REAL NOT NULL CHECK (x2 > x1 AND x2 < 1e9),
    y2 REAL NOT NULL CHECK (y2 > y1 AND y2 < 1e9),
    is_crowd INTEGER NOT NULL DEFAULT 0 CHECK (is_crowd IN (0, 1)),
    segmentation TEXT CHECK (segmentation IS NULL OR json_valid(segmentation)),
    coco_id INTEGER,
    source_bbox_xywh TEXT CHECK (source_bbox_xywh IS NULL OR json_valid(source_bbox_xywh))
) STRICT;
CREATE INDEX annotation_image ON annotation (image_id);
CREATE INDEX annotation_category ON annotation (category_id);

CREATE TABLE import_report (
    id INTEGER PRIMARY KEY,
    created_at REAL NOT NULL,
    source TEXT NOT NULL,
    report TEXT NOT NULL CHECK (json_valid(report))
) STRICT;

CREATE TABLE job (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'queued'
        CHECK (state IN ('queued', 'running', 'stopping', 'done', 'failed', 'cancelled', 'interrupted')),
    attempt INTEGER NOT NULL DEFAULT 0,
    payload TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(payload)),
    progress TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(progress)),
    result TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(result)),
    error TEXT NOT NULL DEFAULT '',
    pid INTEGER,
    is_stop_requested INTEGER NOT NULL DEFAULT 0 CHECK (is_stop_requested IN (0, 1)),
    created_at REAL NOT NULL,
    started_at REAL,
    ended_at REAL,
    heartbeat_at REAL
) STRICT;
CREATE INDEX job_state ON job (state, id);

CREATE TABLE run (
    id INTEGER PRIMARY KEY,
    job_id INTEGER NOT NULL REFERENCES job (id),
    name TEXT NOT NULL,
    config TEXT NOT NULL CHECK (json_valid(config)),
    created_at REAL NOT NULL,
    epoch INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE metric (
    id INTEGER PRIMARY KEY,
    run_id INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    step INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    split TEXT NOT NULL,
    name TEXT NOT NULL,
    value REAL NOT NULL,
    elapsed_s REAL NOT NULL
) STRICT;
CREATE INDEX metric_run ON metric (run_id, id);

CREATE TABLE checkpoint (
    id INTEGER PRIMARY KEY,
    run_id INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    epoch INTEGER NOT NULL,
    step INTEGER NOT NULL,
    file_name TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    map50 REAL,
    f1 REAL,
    score REAL,
    is_last INTEGER NOT NULL DEFAULT 0 CHECK (is_last IN (0, 1)),
    UNIQUE (run_id, file_name)
) STRICT;

CREATE TABLE prediction_set (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('checkpoint', 'ensemble')),
    run_id INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    checkpoint_id INTEGER REFERENCES checkpoint (id) ON DELETE CASCADE,
    split TEXT NOT NULL CHECK (split IN ('train', 'valid', 'test')),
    name TEXT NOT NULL,
    members TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(members)),
    options TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(options)),
    snapshot_sha256 TEXT NOT NULL,
    created_at REAL NOT NULL
) STRICT;

CREATE TABLE prediction (
    set_id INTEGER NOT NULL REFERENCES prediction_set (id) ON DELETE CASCADE,
    image_id INTEGER NOT NULL,
    boxes BLOB NOT NULL,
    scores BLOB NOT NULL,
    labels BLOB NOT NULL,
    PRIMARY KEY (set_id, image_id)
) STRICT, WITHOUT ROWID;
"""
