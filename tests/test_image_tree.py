"""Which entries of a folder of images count, and how its class folders are numbered."""

import os

import pytest

from varient.image_tree import (
    ImageTreeError,
    check_class_folders,
    class_numbers,
    is_hidden,
    is_image,
    read_tree,
    torchvision_differs,
)


def _make(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def _refused(root, *parts):
    with pytest.raises(ImageTreeError) as caught:
        list(read_tree(root))
    message = str(caught.value)
    assert all(str(part) in message for part in parts) and "\n" not in message, message


def _files(root):
    return [name for folder in read_tree(root) for name in folder.inside(folder.files)]


def test_files_come_by_folder_and_links_are_followed(tmp_path):
    root = _make(tmp_path / "tree", "b/2.png", "b/1.png", "b-c/3.png", "b/deep/4.png", "0.png")
    _make(tmp_path / "else", "5.png", "in/6.png")
    (root / "a").symlink_to(tmp_path / "else")
    (root / "b/7.png").symlink_to(tmp_path / "else/5.png")
    assert _files(root) == ["0.png", "a/5.png", "a/in/6.png", "b/1.png", "b/2.png", "b/7.png", "b/deep/4.png",
                            "b-c/3.png"]


def test_sizes_are_those_of_the_files_that_links_lead_to(tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "x.png").write_bytes(b"12345")
    (tmp_path / "tree/y.png").symlink_to(tmp_path / "x.png")
    (top,) = read_tree(tmp_path / "tree", sized=True)
    assert (top.files, top.sizes) == (("y.png",), (5,))


@pytest.mark.parametrize("name", [".x.png", "._x.JPEG", ".Trash-1000", "__MACOSX", "@eaDir", "lost+found",
                                  "$RECYCLE.BIN", "System Volume Information", "Thumbs.db", "desktop.ini"])
def test_hidden_entries_are_left_out_and_named(tmp_path, name):
    assert is_hidden(name) and not is_hidden(f"x{name}")
    _make(tmp_path, "a/1.png", f"{name}/2.png", f"a/{name}")
    folders = list(read_tree(tmp_path))
    assert _files(tmp_path) == ["a/1.png"]
    assert [hidden for folder in folders for hidden in folder.inside(folder.hidden)] == [name, f"a/{name}"]


@pytest.mark.parametrize("deep", ["", "a", "a/b"])
@pytest.mark.parametrize("target", ["nowhere", "self"])
def test_a_link_that_leads_nowhere_is_named(tmp_path, deep, target):
    place = _make(tmp_path / "tree", "a/b/1.png") / deep
    (place / "self").symlink_to(place / target)
    _refused(tmp_path / "tree", place / "self")


def test_a_hidden_link_that_leads_nowhere_is_nobodys_business(tmp_path):
    _make(tmp_path, "1.png")
    (tmp_path / ".#lock").symlink_to("nowhere")
    assert _files(tmp_path) == ["1.png"]


@pytest.mark.parametrize(("link", "target"), [
    ("up", "."), ("a/up", ".."), ("a/b/up", "../.."), ("a/b/up", ".."), ("a/b/up", "."), ("twin", "a"),
    ("c/twin", "../a/b"), ("a/twin", "b")])
def test_a_folder_that_is_reached_twice_is_named_by_both_ways(tmp_path, link, target):
    _make(tmp_path, "a/b/1.png", "c/2.png")
    (tmp_path / link).symlink_to(target)
    _refused(tmp_path, link.rpartition("/")[2], "reached twice")


def test_circles_through_other_folders_have_an_end(tmp_path):
    _make(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "a/to-b").symlink_to("../b")
    (tmp_path / "b/to-a").symlink_to("../a")
    _refused(tmp_path, "reached twice")


def test_a_pipe_named_like_an_image_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "1.png")
    _refused(tmp_path, tmp_path / "1.png", "neither a file nor a folder")


@pytest.mark.parametrize("deep", [False, True])
def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path, monkeypatch, deep):
    _make(tmp_path, "a/b/1.png")
    locked = tmp_path / "a/b" if deep else tmp_path / "a"
    scandir = os.scandir

    def refusing(path):
        if str(path) == str(locked):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    _refused(tmp_path, locked, "Permission denied")


def test_images_are_known_by_their_names():
    assert all(map(is_image, ("a.png", "a.JPEG", "a.b.webp", "x.TIF", "x.gif", "x.avif")))
    assert not any(map(is_image, ("a.txt", "png", "a.png.part", "a.npz", "manifest.json")))
    assert not is_image("a.webp", (".png",))


@pytest.mark.parametrize(("names", "numbers", "differs"), [
    ([str(number) for number in range(12)], list(range(12)), True),
    (["00", "01", "10"], [0, 1, 10], False),
    (["n02", "n01"], [1, 0], False),
    (["0", "1", "10", "2", "x"], [0, 1, 2, 3, 4], False),  # not all are numbers: torchvision's order
    (["²", "1"], [1, 0], False),
    (["٣", "1"], [1, 0], False),
    (["-1", "1"], [0, 1], False),
    (["9" * 30, "1"], [1, 0], False),  # no number that int64 holds
])
def test_class_folders_are_numbered_by_their_names_or_their_rank(names, numbers, differs):
    found = class_numbers(names)
    assert [found[name] for name in names] == numbers and list(found.values()) == sorted(numbers)
    assert torchvision_differs(found) == differs


def test_two_names_of_one_number_are_refused():
    with pytest.raises(ImageTreeError, match="01 and 1 have the same number"):
        class_numbers(["1", "01", "0"])


# ImageNet's layout

def _classes(root, *names):
    return _make(root, *(f"{name}/1.JPEG" for name in names))


def test_class_folders_that_are_as_the_config_says(tmp_path):
    _classes(tmp_path / "train", "n00000001", "n00000002")
    _make(tmp_path / "train", "readme.txt", ".ipynb_checkpoints/1.JPEG", "lost+found/x", "n00000001/sub/2.JPEG")
    check_class_folders(tmp_path / "train", 2)


def test_an_image_may_lie_deeper_in_its_class(tmp_path):
    _make(tmp_path / "train", "0/deep/1.JPEG", "1/1.png")
    check_class_folders(tmp_path / "train", 2)


@pytest.mark.parametrize(("make", "count", "said"), [
    (lambda root: _make(root, "train/n00000009/notes.txt"), 3, ["no image in class folder", "n00000009"]),
    (lambda root: _make(root, "train/n00000009/.1.JPEG"), 3, ["no image in class folder", "n00000009"]),
    (lambda root: _make(root, "train/n00000009/notes.txt"), 2, ["3 class folders", "without images: n00000009"]),
    (lambda root: _classes(root / "train", "backup"), 2, ["3 class folders", "like the others: backup"]),
    (lambda root: _classes(root / "val", "n00000001", "n00000002", "n00000003"), 3,
     ["2 class folders", "missing", "n00000003"]),
    (lambda root: (_classes(root / "train", "n00000003"), _classes(root / "val", "n00000001", "n00000002")), 2,
     ["3 class folders", "extra", "n00000003"]),
    (lambda root: (root / "train/n00000003").symlink_to("n00000001"), 3, ["n00000001", "n00000003", "reached twice"]),
    (lambda root: (root / "train/n00000003").symlink_to("gone"), 3, ["n00000003", "broken link"]),
])
def test_the_odd_class_folder_is_named(tmp_path, make, count, said):
    _classes(tmp_path / "train", "n00000001", "n00000002")
    make(tmp_path)
    with pytest.raises(ImageTreeError) as caught:
        check_class_folders(tmp_path / "train", count)
    assert all(part in str(caught.value) for part in said) and "\n" not in str(caught.value), caught.value


@pytest.mark.parametrize(("names", "count", "said"), [
    (("1", "2", "3"), 3, ["missing: 0", "extra: 3"]),
    (("0", "1", "3"), 4, ["3 class folders", "missing: 2"]),
    (("0", "1", "2"), 2, ["3 class folders", "extra: 2"]),
    (("0", "1", "01"), 3, ["01 and 1 have the same number"]),
])
def test_numbers_of_classes_begin_at_0_and_have_no_gaps(tmp_path, names, count, said):
    _classes(tmp_path / "train", *names)
    with pytest.raises(ImageTreeError) as caught:
        check_class_folders(tmp_path / "train", count)
    assert all(part in str(caught.value) for part in said), caught.value


def test_a_split_has_the_classes_of_train(tmp_path):
    _classes(tmp_path / "train", "n1", "n2")
    _classes(tmp_path / "val", "n1", "n3")
    with pytest.raises(ImageTreeError, match="labels would not agree: n2, n3"):
        check_class_folders(tmp_path / "val", 2)
