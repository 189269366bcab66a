"""Projects: listing, creating, renaming, duplicating, deleting, and what damage by hand does."""

import shutil

import pytest

from app.errors import BadRequest, Conflict, NotFound
from app.records import NewImage
from app.services import projects
from app.services.context import Services
from app.store import images, jobs
from app.store.files import Workspace


@pytest.fixture
def services(tmp_path):
    return Services(Workspace(tmp_path / "projects"))


def put_image(services, slug, content=b"bytes"):
    files = services.files(slug)
    path = files.image("ab" * 32, "jpg")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    with services.database(slug).write() as db:
        return images.insert(db, NewImage("a.jpg", "ab" * 32, "jpg", 10, 10, "train", "a", 0))


def test_new_project_is_listed_with_its_name_as_text(services):
    slug = projects.create_project(services, " <b>Röntgen</b> 1 ")
    (listed,) = projects.list_projects(services)
    assert listed["name"] == "<b>Röntgen</b> 1"
    assert listed["slug"] == slug == "b-rontgen-b-1"
    assert (listed["num_images"], listed["num_runs"], listed["problem"]) == (0, 0, "")
    assert listed["size_bytes"] > 0
    assert projects.list_projects(services, with_sizes=False) == [{**listed, "size_bytes": 0}]


@pytest.mark.parametrize("name", ["", "   ", "a\x00b", "line\nbreak", "x" * 101])
def test_names_that_cannot_be_shown_are_refused(services, name):
    with pytest.raises(BadRequest, match="printable"):
        projects.create_project(services, name)
    assert projects.list_projects(services) == []


@pytest.mark.parametrize("name", ["..", "/etc", "con", "a/../../b", "日本"])
def test_any_other_name_gets_a_folder_inside_the_workspace(services, name):
    slug = projects.create_project(services, name)
    assert services.files(slug).folder.parent == services.workspace.root
    assert projects.get_project(services, slug)["name"] == name


def test_same_name_twice_gives_two_folders_and_needs_the_short_name(services):
    first, second = projects.create_project(services, "Cats"), projects.create_project(services, "Cats")
    assert first != second
    assert projects.find_project(services, second) == second
    with pytest.raises(BadRequest, match="More than one"):
        projects.find_project(services, "Cats")
    with pytest.raises(NotFound, match="'dogs'"):
        projects.find_project(services, "dogs")


def test_last_opened_comes_first_and_opening_backs_up(services):
    first, second = projects.create_project(services, "A"), projects.create_project(services, "B")
    projects.open_project(services, first)
    assert [project["slug"] for project in projects.list_projects(services)] == [first, second]
    assert len(list(services.files(first).backups.glob("*.db"))) == 1
    projects.open_project(services, first)
    assert len(list(services.files(first).backups.glob("*.db"))) == 1


def test_renaming_keeps_the_folder(services):
    slug = projects.create_project(services, "A")
    assert projects.rename_project(services, slug, "B")["name"] == "B"
    assert services.workspace.slugs() == [slug]


def test_duplicate_has_everything_and_lives_on_its_own(services):
    slug = projects.create_project(services, "A")
    image_id = put_image(services, slug)
    run_file = services.files(slug).run(1) / "best.pt"
    run_file.parent.mkdir(parents=True)
    run_file.write_bytes(b"weights")
    job = jobs.enqueue(services.database(slug), "train", {})
    copy = projects.duplicate_project(services, slug)
    assert projects.get_project(services, copy)["name"] == "A copy"
    assert (services.files(copy).run(1) / "best.pt").read_bytes() == b"weights"
    assert jobs.get_job(services.database(copy), job.id).state == "interrupted"
    assert jobs.get_job(services.database(slug), job.id).state == "queued"
    shutil.rmtree(services.files(slug).folder)
    with services.database(copy).read() as db:
        image = images.get(db, image_id)
    assert services.files(copy).image(image.sha256, "jpg").read_bytes() == b"bytes"


def test_deleting_moves_to_the_trash_and_frees_the_name(services):
    slug = projects.create_project(services, "A")
    put_image(services, slug)
    target = projects.delete_project(services, slug)
    assert (target / "project.db").is_file() and target.parent == services.workspace.trash
    assert projects.list_projects(services) == []
    assert projects.create_project(services, "A") == slug
    assert projects.get_project(services, slug)["num_images"] == 0


def test_project_with_work_under_way_is_not_deleted(services):
    slug = projects.create_project(services, "A")
    jobs.enqueue(services.database(slug), "train", {})
    with pytest.raises(Conflict, match="unfinished"):
        projects.delete_project(services, slug)
    assert services.workspace.slugs() == [slug]


def test_damaged_project_is_listed_with_its_problem_and_restored_from_the_backup(services):
    slug, healthy = projects.create_project(services, "A"), projects.create_project(services, "B")
    put_image(services, slug)
    services.database(slug).backup()
    services.files(slug).database.write_bytes(b"SQLite format 3\x00" + b"rubbish" * 1000)
    for suffix in ("-wal", "-shm"):
        services.files(slug).database.with_name(f"project.db{suffix}").unlink(missing_ok=True)
    services.forget(slug)
    listed = {project["slug"]: project for project in projects.list_projects(services)}
    assert "damaged" in listed[slug]["problem"] and listed[slug]["has_backup"]
    assert listed[healthy]["problem"] == ""
    assert projects.restore_backup(services, slug)["num_images"] == 1
    assert any("damaged" in path.name for path in services.files(slug).backups.iterdir())


def test_project_whose_file_was_emptied_while_open_is_told(services):
    slug = projects.create_project(services, "A")
    projects.get_project(services, slug)
    services.files(slug).database.write_bytes(b"no database at all, but text of some length" * 50)
    for suffix in ("-wal", "-shm"):
        services.files(slug).database.with_name(f"project.db{suffix}").unlink(missing_ok=True)
    assert "damaged" in projects.get_project(services, slug)["problem"]
