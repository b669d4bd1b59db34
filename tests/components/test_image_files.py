"""Which files an image folder holds, and when its digest changes."""

import errno
import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from PIL import Image

from components.errors import DataRefused, UsageError
from components.image_files import SPLIT_FOLDERS, content_digest, scan


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    return folder


def image(path: Path, colour=(1, 2, 3), kind="PNG") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), colour).save(path, kind)
    return path


def paths(listing) -> list[str]:
    return [file.path for file in listing.files]


# ---- classes and splits ---------------------------------------------------------------------------------------------


def test_class_folders_label_the_files_at_any_depth(root):
    image(root / "cat" / "1.png")
    image(root / "cat" / "indoors" / "sofa" / "2.png")
    image(root / "dog" / "3.png")
    listing = scan(root)
    assert [(file.path, file.class_name, file.split) for file in listing.files] == [
        ("cat/1.png", "cat", None),
        ("cat/indoors/sofa/2.png", "cat", None),
        ("dog/3.png", "dog", None),
    ]
    assert listing.classes == ["cat", "dog"]
    assert listing.skipped == []


def test_size_and_times_are_those_of_the_file(root):
    path = image(root / "cat" / "1.png")
    (file,) = scan(root).files
    stat = path.stat()
    assert (file.size, file.mtime_ns, file.ctime_ns) == (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


@pytest.mark.parametrize("change", [str.lower, str.upper, str.title])
@pytest.mark.parametrize("name", sorted(SPLIT_FOLDERS))
def test_split_folders_in_every_spelling_place_their_files(root, name, change):
    image(root / change("train") / "cat" / "1.png")
    image(root / change(name) / "dog" / "2.png")
    listing = scan(root)
    assert {(file.class_name, file.split) for file in listing.files} == {
        ("cat", "train"),
        ("dog", SPLIT_FOLDERS[name]),
    }
    assert listing.classes == ["cat", "dog"]


def test_split_folders_without_a_train_folder_are_classes(root):
    image(root / "test" / "a" / "1.png")
    image(root / "val" / "a" / "2.png")
    assert scan(root).classes == ["test", "val"]


def test_train_folder_of_bare_images_is_a_class_of_trains(root):
    image(root / "train" / "1.png")
    image(root / "bus" / "2.png")
    listing = scan(root)
    assert listing.classes == ["bus", "train"]
    assert [file.split for file in listing.files] == [None, None]


def test_split_folders_beside_class_folders_are_a_usage_error(root):
    image(root / "train" / "cat" / "1.png")
    image(root / "test" / "cat" / "2.png")
    image(root / "dog" / "3.png")
    with pytest.raises(UsageError) as caught:
        scan(root)
    for word in ("train", "test", "dog", str(root)):
        assert word in str(caught.value)


def test_d12_empty_class_folder_is_still_a_class(root):
    image(root / "cat" / "1.png")
    (root / "dog").mkdir()
    assert scan(root).classes == ["cat", "dog"]


def test_folder_without_class_folders_is_refused(root):
    image(root / "1.png")
    with pytest.raises(DataRefused, match="holds no class folders"):
        scan(root)


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.write_text("a file")])
def test_image_folder_that_is_none_is_a_usage_error(tmp_path, make):
    make(tmp_path / "no")
    with pytest.raises(UsageError) as caught:
        scan(tmp_path / "no")
    assert str(tmp_path / "no") in str(caught.value)


# ---- odd files ------------------------------------------------------------------------------------------------------


def test_d13_hidden_and_system_files_are_skipped_and_counted(root):
    image(root / "cat" / "1.png")
    odd = ["cat/.DS_Store", "cat/Thumbs.db", "cat/desktop.ini", "cat/._1.png"]
    for path in odd:
        image(root / path)
    image(root / "__MACOSX" / "cat" / "._1.png")
    image(root / ".cache" / "thumbnail.png")
    listing = scan(root)
    assert paths(listing) == ["cat/1.png"]
    assert listing.classes == ["cat"]
    assert dict(listing.skipped) == dict.fromkeys([*odd, "__MACOSX", ".cache"], "hidden or system file")


def test_d13_names_with_spaces_newline_unicode_and_255_bytes_are_listed(root):
    names = ["two words.png", "new\nline.png", "ß-猫-😀.png", "é" * 125 + "a.png", "quote'\".png"]
    assert len(names[3].encode()) == 255
    for name in names:
        image(root / "a class" / name)
    listing = scan(root)
    assert paths(listing) == sorted(f"a class/{name}" for name in names)
    assert listing.skipped == []
    assert len(content_digest(listing.files, root.parent / "memory.json").value) == 64


def test_d13_file_name_that_is_no_utf8_is_listed_and_digested(root):
    path = image(root / "cat" / "1.png")
    os.rename(path, os.fsencode(root) + b"/cat/\xff.png")
    listing = scan(root)
    assert [os.fsencode(file.path) for file in listing.files] == [b"cat/\xff.png"]
    assert len(content_digest(listing.files, root.parent / "memory.json").value) == 64


def test_class_name_that_is_no_utf8_is_refused(root):
    (root / "cat").mkdir()
    os.mkdir(os.fsencode(root) + b"/\xff")
    with pytest.raises(DataRefused, match="not valid UTF-8") as caught:
        scan(root)
    str(caught.value).encode()


def test_text_beside_the_images_is_skipped_and_counted(root):
    image(root / "cat" / "1.png")
    (root / "cat" / "notes.txt").write_text("the cat sat")
    (root / "cat" / "empty").touch()
    (root / "readme.md").write_text("my pets")
    listing = scan(root)
    assert paths(listing) == ["cat/1.png"]
    assert listing.skipped == [
        ("cat/empty", "not an image by name or content"),
        ("cat/notes.txt", "not an image by name or content"),
        ("readme.md", "not in a class folder"),
    ]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "AVIF", "JPEG2000"])
@pytest.mark.parametrize("name", ["photo", "photo.dat", "photo.2024"])
def test_image_by_content_is_listed_whatever_its_name(root, kind, name):
    image(root / "cat" / name, kind=kind)
    assert paths(scan(root)) == [f"cat/{name}"]


def test_image_by_name_is_listed_whatever_its_content(root):
    (root / "cat").mkdir()
    (root / "cat" / "1.JPG").write_text("<html>")
    assert paths(scan(root)) == ["cat/1.JPG"]


def test_pipe_in_a_class_folder_is_skipped_unread(root):
    image(root / "cat" / "1.png")
    os.mkfifo(root / "cat" / "2.png")
    listing = scan(root)
    assert paths(listing) == ["cat/1.png"]
    assert listing.skipped == [("cat/2.png", "not a regular file")]


# ---- links ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("follow", [False, True])
def test_d13_symlink_loops_end(root, follow):
    image(root / "cat" / "1.png")
    (root / "cat" / "up").symlink_to("..")
    (root / "cat" / "here").symlink_to(".")
    (root / "cat" / "self").symlink_to("self")
    (root / "cat" / "ping").symlink_to("pong")
    (root / "cat" / "pong").symlink_to("ping")
    listing = scan(root, follow)
    assert paths(listing) == ["cat/1.png"]
    assert {path for path, _ in listing.skipped} == {f"cat/{name}" for name in ("up", "here", "self", "ping", "pong")}


@pytest.mark.parametrize("follow", [False, True])
def test_d13_link_to_itself_in_place_of_a_class_is_no_class(root, follow):
    image(root / "cat" / "1.png")
    (root / "dog").symlink_to("dog")
    listing = scan(root, follow)
    assert listing.classes == ["cat"]
    assert listing.skipped == [("dog", "broken link")]


def test_d13_broken_link_is_skipped_and_counted(root):
    image(root / "cat" / "1.png")
    (root / "cat" / "2.png").symlink_to("gone.png")
    assert scan(root).skipped == [("cat/2.png", "broken link")]


def test_links_out_of_the_root_are_read_only_where_that_is_asked_for(root, tmp_path):
    image(root / "cat" / "1.png")
    outside = image(tmp_path / "elsewhere" / "2.png")
    (root / "cat" / "2.png").symlink_to(outside)
    (root / "cat" / "more").symlink_to(outside.parent)
    listing = scan(root)
    assert paths(listing) == ["cat/1.png"]
    assert {path for path, _ in listing.skipped} == {"cat/2.png", "cat/more"}
    assert {reason for _, reason in listing.skipped} == {"symbolic link out of the image folder"}
    assert paths(scan(root, follow_symlinks=True)) == ["cat/1.png", "cat/2.png", "cat/more/2.png"]


def test_root_that_is_itself_a_link_is_read(root, tmp_path):
    image(root / "cat" / "1.png")
    (tmp_path / "link").symlink_to(root)
    assert paths(scan(tmp_path / "link")) == ["cat/1.png"]


@pytest.mark.parametrize("split", ["", "train"])
def test_linked_class_folder_is_a_class_only_where_links_are_followed(root, tmp_path, split):
    image(root / split / "cat" / "1.png")
    image(tmp_path / "elsewhere" / "2.png")
    (root / split / "dog").symlink_to(tmp_path / "elsewhere")
    assert scan(root).classes == ["cat"]
    assert scan(root, follow_symlinks=True).classes == ["cat", "dog"]


# ---- what may not be read -------------------------------------------------------------------------------------------


@pytest.fixture
def denied_root():
    """An image folder in which permissions hold: for the superuser, who may read everything, as another user."""
    # Not pytest's folder: other users may not enter that.
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    user = os.geteuid()
    if user == 0:
        os.chown(folder, 65534, -1)
        os.seteuid(65534)
    yield folder
    os.seteuid(user)
    shutil.rmtree(folder)


def test_d14_unreadable_image_is_listed_and_digested(denied_root):
    path = image(denied_root / "cat" / "1.png")
    readable = content_digest(scan(denied_root).files)
    path.chmod(0)
    with pytest.raises(PermissionError):
        path.read_bytes()
    listing = scan(denied_root)
    assert paths(listing) == ["cat/1.png"]
    memory = denied_root / "memory.json"
    unreadable = content_digest(listing.files, memory)
    assert unreadable != readable
    path.chmod(0o644)
    assert content_digest(scan(denied_root).files, memory) == readable


def test_d14_unreadable_folder_is_skipped_and_counted(denied_root):
    image(denied_root / "cat" / "1.png")
    image(denied_root / "cat" / "locked" / "2.png").parent.chmod(0)
    listing = scan(denied_root)
    (denied_root / "cat" / "locked").chmod(0o755)
    assert paths(listing) == ["cat/1.png"]
    assert listing.skipped == [("cat/locked", f"folder cannot be read ({os.strerror(errno.EACCES)})")]


def test_unreadable_split_folder_is_a_usage_error_that_names_it(denied_root):
    image(denied_root / "train" / "cat" / "1.png")
    image(denied_root / "test" / "cat" / "2.png")
    (denied_root / "test").chmod(0)
    try:
        with pytest.raises(UsageError) as caught:
            scan(denied_root)
    finally:
        (denied_root / "test").chmod(0o755)
    assert str(denied_root / "test") in str(caught.value)


def test_d14_image_gone_between_listing_and_reading_is_digested(root):
    path = image(root / "cat" / "1.png")
    listing = scan(root)
    before = content_digest(listing.files)
    path.unlink()
    assert content_digest(listing.files) != before


# ---- digest ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def pets(root):
    image(root / "cat" / "1.png", (1, 1, 1))
    image(root / "cat" / "2.png", (2, 2, 2))
    image(root / "dog" / "3.png", (3, 3, 3))
    return root


@pytest.fixture
def digest(pets):
    """The digest with a memory file, as the command asks for it."""
    return lambda: content_digest(scan(pets).files, pets.parent / "cache" / "memory.json")


def test_d11_touch_alone_leaves_the_digest(pets, digest):
    before = digest()
    os.utime(pets / "cat" / "1.png", (1, 1))
    assert digest() == before


def test_d11_moved_to_another_class_changes_the_digest(pets, digest):
    before = digest()
    (pets / "cat" / "2.png").rename(pets / "dog" / "2.png")  # the order of the contents stays as it was
    assert digest() != before


def test_d11_renamed_class_changes_the_digest(pets, digest):
    before = digest()
    (pets / "dog").rename(pets / "wolf")
    assert digest() != before


def test_d11_overwritten_image_changes_the_digest(pets, digest):
    before = digest()
    image(pets / "cat" / "1.png", (9, 9, 9))
    assert digest() != before


@pytest.mark.parametrize(
    "change", [lambda root: image(root / "cat" / "4.png"), lambda root: (root / "dog/3.png").unlink()]
)
def test_added_and_removed_images_change_the_digest(pets, digest, change):
    before = digest()
    change(pets)
    assert digest() != before


def test_d11_images_of_one_size_and_age_that_swap_places_change_the_digest(pets, digest):
    """As after unpacking an archive of uncompressed images: size and modification time say nothing."""
    cat, dog = pets / "cat" / "1.bmp", pets / "dog" / "1.bmp"
    image(cat, (1, 1, 1), "BMP")
    image(dog, (2, 2, 2), "BMP")
    for path in (cat, dog):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    before = digest()
    cat.rename(pets / "swap")
    dog.rename(cat)
    (pets / "swap").rename(dog)
    assert digest() != before


def test_digest_is_the_same_with_and_without_memory_and_in_any_folder(pets, digest, tmp_path):
    shutil.copytree(pets, tmp_path / "copy")
    assert digest() == content_digest(scan(pets).files) == content_digest(scan(tmp_path / "copy").files)


def test_only_changed_files_are_read_again(pets, digest):
    digest()
    memory = pets.parent / "cache" / "memory.json"
    known = json.loads(memory.read_text())
    for row in known["files"].values():
        row[-1] = "remembered"
    memory.write_text(json.dumps(known))
    changed = image(pets / "cat" / "1.png", (9, 9, 9))
    os.utime(changed, (1, 1))
    digest()
    files = json.loads(memory.read_text())["files"]
    assert files[f"{pets}/cat/2.png"][-1] == files[f"{pets}/dog/3.png"][-1] == "remembered"
    assert len(files[f"{pets}/cat/1.png"][-1]) == 64


def test_memory_of_another_folder_is_not_believed(pets, tmp_path):
    memory = tmp_path / "memory.json"
    shutil.copytree(pets, tmp_path / "other", copy_function=os.link)
    expected = content_digest(scan(pets).files, memory)
    known = json.loads(memory.read_text())
    for row in known["files"].values():
        row[-1] = "of another folder"
    memory.write_text(json.dumps(known))
    assert content_digest(scan(tmp_path / "other").files, memory) == expected


@pytest.mark.parametrize("content", ["", '{"root": "', "[]", "null", "{}"])
def test_damaged_memory_file_is_written_anew(pets, digest, content):
    expected = digest()
    memory = pets.parent / "cache" / "memory.json"
    memory.write_text(content)
    assert digest() == expected
    assert set(json.loads(memory.read_text())["files"]) == {
        str(pets / path) for path in ("cat/1.png", "cat/2.png", "dog/3.png")
    }


def test_digest_tells_its_progress_once_a_file(pets):
    told = []
    content_digest(scan(pets).files, advance=lambda: told.append(1))
    assert len(told) == 3


def test_d12_empty_class_folder_changes_the_digest(tmp_path):
    listing = scan_two(tmp_path)
    before = content_digest(listing.files, classes=listing.classes)
    (tmp_path / "emu").mkdir()
    listing = scan(tmp_path)
    assert content_digest(listing.files, classes=listing.classes) != before


def scan_two(root):
    for name in ("cat", "dog"):
        (root / name).mkdir()
        (root / name / "1.jpg").write_bytes(b"\xff\xd8\xff")
    return scan(root)


def test_text_that_begins_like_a_bitmap_is_no_image(tmp_path):
    listing = scan_two(tmp_path)
    (tmp_path / "cat" / "cars").write_text("BMW, Bentley, Bugatti")
    assert scan(tmp_path).files == listing.files
