"""Remote folders are read as local ones are, and a local one costs no import of Beam."""

import errno
import io
import subprocess
import sys

import pytest
from PIL import Image

from components import storage
from components.errors import DataRefused, UsageError
from components.image_files import content_digest, scan
from tests.conftest import ROOT
from tests.memory_files import MemoryFiles


@pytest.fixture
def memory():
    MemoryFiles.clear()
    yield MemoryFiles
    MemoryFiles.clear()


def png(colour=(1, 2, 3)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def pets(memory):
    for uri in ("cat/1.png", "cat/indoors/sofa/2.png", "dog/3"):
        memory.put(f"mem://bucket/pets/{uri}", png())
    memory.put("mem://bucket/pets-of-others/cat/1.png", png())
    return "mem://bucket/pets"


def test_local_folders_are_listed_and_digested_without_importing_beam(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.png").write_bytes(png())
    code = (
        "import sys; from components import sources, image_files;"
        f"files = sources.list_images([{str(tmp_path)!r}]).files; image_files.content_digest(files);"
        "print(len(files), 'apache_beam' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "False"]


# ---- folders --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slash", ["", "/"])
def test_remote_class_folders_label_the_files_at_any_depth(pets, slash):
    listing = scan(pets + slash)
    assert [(file.path, file.class_name, file.split) for file in listing.files] == [
        ("cat/1.png", "cat", None),
        ("cat/indoors/sofa/2.png", "cat", None),
        ("dog/3", "dog", None),
    ]
    assert listing.files[0].location == "mem://bucket/pets/cat/1.png"
    assert listing.classes == ["cat", "dog"]


def test_remote_split_folders_place_their_files(memory):
    memory.put("mem://b/Train/cat/1.png", png())
    memory.put("mem://b/val/cat/2.png", png())
    assert [(file.class_name, file.split) for file in scan("mem://b").files] == [("cat", "train"), ("cat", "eval")]


def test_remote_odd_names_are_skipped_and_counted(pets, memory):
    for name in ("cat/.DS_Store", ".cache/a/1.png", ".cache/a/2.png", "cat/notes.txt", "cat//4.png", "5.png"):
        memory.put(f"{pets}/{name}", b"text")
    memory.put(f"{pets}/dog/", b"")  # stands for a folder
    listing = scan(pets)
    assert len(listing.files) == 3
    assert dict(listing.skipped) == {
        "cat/.DS_Store": "hidden or system file",
        ".cache": "hidden or system file",
        "cat/notes.txt": "not an image by name or content",
        "cat//4.png": "a folder without a name",
        "5.png": "not in a class folder",
    }
    assert listing.classes == ["cat", "dog"]


def test_only_remote_files_whose_name_does_not_tell_are_opened_for_listing(pets, memory):
    scan(pets)
    assert memory.reads == ["mem://bucket/pets/dog/3"]


def test_remote_folder_with_characters_of_a_pattern_is_listed(memory):
    memory.put("mem://b/a[1]*?/cat/1.png", png())
    memory.put("mem://b/a1xx/cat/1.png", png())
    assert [file.location for file in scan("mem://b/a[1]*?").files] == ["mem://b/a[1]*?/cat/1.png"]


def test_remote_folder_of_bare_images_is_refused(memory):
    memory.put("mem://b/1.png", png())
    with pytest.raises(DataRefused, match="holds no class folders"):
        scan("mem://b")


# ---- what cannot be had ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("root", "words"),
    [
        ("nowhere://bucket/images", ("nowhere://", "apache-beam[gcp]")),
        ("mem://bucket/none", ("mem://bucket/none", "--images")),
        ("mem://denied/images", ("mem://denied/images", "cannot be listed (403 not yours)")),
    ],
)
def test_remote_folder_that_cannot_be_listed_is_a_usage_error(memory, root, words):
    with pytest.raises(UsageError) as caught:
        scan(root)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_d14_what_a_remote_client_raises_is_an_os_error_of_one_line(pets, memory):
    uri = f"{pets}/cat/1.png"
    memory.broken.add(uri)
    for location, text in ((uri, "503 try again"), (f"{pets}/gone.png", f"404 {pets}/gone.png")):
        with pytest.raises(OSError, match=text) as caught:
            storage.read_bytes(location)
        assert (caught.value.errno, caught.value.strerror) == (errno.EIO, text)


def test_remote_bytes_are_those_that_are_stored(memory):
    memory.put("mem://b/a.png.gz", b"\x1f\x8b packed")
    assert storage.read_bytes("mem://b/a.png.gz") == b"\x1f\x8b packed"
    assert storage.read_bytes("mem://b/a.png.gz", 2) == b"\x1f\x8b"


# ---- digest ---------------------------------------------------------------------------------------------------------


def test_remote_digest_downloads_nothing_and_notices_a_new_version(pets, memory, tmp_path):
    def digest():
        return content_digest(scan(pets).files, tmp_path / "memory.json")

    before = digest()
    memory.reads.clear()
    assert content_digest(scan(pets).files) == before
    assert memory.reads == [f"{pets}/dog/3"]  # the listing's, for its name says nothing
    data, _ = memory.files[f"{pets}/cat/1.png"]
    memory.put(f"{pets}/cat/1.png", data, updated=2.0)
    assert digest() != before
    memory.put(f"{pets}/cat/1.png", data)
    assert digest() == before
    memory.put(f"{pets}/cat/1.png", data + b"\0")
    assert digest() != before
