"""Your own images are read unchanged, or refused by name; none is left out silently."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from neuromorphic_datasets import images

GREY = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
DEEP = (GREY.astype(np.uint16) + 1) * 256
COLOUR = np.stack([GREY, GREY[::-1], 255 - GREY], axis=-1)


def folder(root, files, classes=("cat", "dog"), count=5):
    """Make class folders of grey images, and then files of a name, below root, and bytes."""
    for value, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.fromarray(GREY + np.uint8(value)).save(root / name / f"{i}.png")
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return str(root)


def saved(pixels, form, mode=None, **options):
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(buffer, form, **options)
    return buffer.getvalue()


def only(root, name, content):
    """Return the pixels, (C, H, W), of a set of copies of one image, which is read by its class folder's files."""
    for kind in ("cat", "dog"):
        for i in range(5):
            path = root / kind / f"{i}{name}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    train, test = images.load(str(root))
    assert len(train) + len(test) == 10
    assert (train.images == train.images[0]).all()
    return train.images[0].numpy()


def png16(colours, values):
    """A PNG of 16 bits per channel, which Pillow does not write; `colours` is the type in its header."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, colours, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("ending", "form"),
    [(".ppm", "PPM"), (".PGM", "PPM"), (".tif", "TIFF"), (".TIFF", "TIFF"), (".bmp", "BMP"), (".PNG", "PNG")],
)
def test_every_lossless_format_gives_its_pixels(tmp_path, ending, form):
    np.testing.assert_array_equal(only(tmp_path / "grey", ending, saved(GREY, form)), GREY[None])
    colour = only(tmp_path / "colour", ending, saved(COLOUR, form))
    np.testing.assert_array_equal(colour, COLOUR.transpose(2, 0, 1))


def test_other_modes_that_are_exact(tmp_path):
    bits = GREY > 100
    np.testing.assert_array_equal(only(tmp_path / "bits", ".pbm", saved(bits, "PPM"))[0], bits * 255)
    np.testing.assert_array_equal(only(tmp_path / "plain", ".pbm", b"P1\n2 2\n0 1\n1 0\n")[0], [[255, 0], [0, 255]])
    np.testing.assert_array_equal(only(tmp_path / "four", ".pgm", b"P5\n2 1\n15\n" + bytes([0, 15]))[0], [[0, 255]])
    opaque = np.dstack([COLOUR, np.full(GREY.shape, 255, np.uint8)])
    np.testing.assert_array_equal(only(tmp_path / "opaque", ".png", saved(opaque, "PNG")), COLOUR.transpose(2, 0, 1))
    la = saved(np.dstack([GREY, np.full(GREY.shape, 255, np.uint8)]), "PNG")
    np.testing.assert_array_equal(only(tmp_path / "la", ".png", la), GREY[None])
    palette = saved(COLOUR, "GIF", "P")
    expected = np.asarray(Image.open(io.BytesIO(palette)).convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal(only(tmp_path / "palette", ".gif", palette), expected)


@pytest.mark.parametrize(("ending", "form"), [(".png", "PNG"), (".tif", "TIFF"), (".pgm", "PPM")])
def test_sixteen_bits_of_grey_keep_their_values(tmp_path, ending, form):
    np.testing.assert_array_equal(only(tmp_path, ending, saved(DEEP, form))[0], DEEP)
    train, _ = images.load(tmp_path)
    torch.testing.assert_close(train[0][0][0], torch.from_numpy(DEEP.astype(np.float32)) / 65535)
    [(batch, _)] = images.loaders(tmp_path, val_fraction=0)[0]
    assert torch.equal(batch[0], train[0][0])


def test_a_grey_map_of_twelve_bits_reaches_from_black_to_white(tmp_path):
    values = np.array([[0, 4095], [2048, 1]], ">u2")
    grey = only(tmp_path, ".pgm", b"P5\n2 2\n4095\n" + values.tobytes())[0]
    np.testing.assert_array_equal(grey, np.rint(values * (65535 / 4095)))


def test_depths_are_not_mixed(tmp_path):
    root = folder(tmp_path / "set", {"dog/a.png": saved(DEEP, "PNG")})
    with pytest.raises(ValueError, match=r"a\.png: expected shape .* and uint8 as in .* got \(4, 6\) and uint16$"):
        images.load(root)


def test_images_of_any_size_are_resized(tmp_path):
    root = folder(tmp_path / "set", {"dog/a.png": saved(np.full((9, 3), 7, np.uint8), "PNG")})
    train, test = images.load(root, resize=(2, 3))
    assert train.images.shape[1:] == test.images.shape[1:] == (1, 2, 3)
    assert (torch.cat([train.images, test.images]) == 7).flatten(1).all(1).sum() == 1
    assert images.loaders(root, resize=5, val_fraction=0)[2].dataset[0][0].shape == (1, 5, 5)
    expected = np.asarray(Image.fromarray(COLOUR).resize((3, 2), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    for kind in ("cat", "dog"):
        for i in range(5):
            (tmp_path / "colour" / kind).mkdir(parents=True, exist_ok=True)
            (tmp_path / "colour" / kind / f"{i}.ppm").write_bytes(saved(COLOUR, "PPM"))
    np.testing.assert_array_equal(images.load(tmp_path / "colour", resize=(2, 3))[0].images[0].numpy(), expected)
    np.savez(tmp_path / "a.npz", x_train=[DEEP] * 10, y_train=range(10), x_test=[DEEP] * 10, y_test=range(10))
    deep = images.load("mnist", root=tmp_path / "a.npz", resize=(2, 3))[0].pixels
    assert (deep.dtype, deep.shape) == (np.uint16, (10, 1, 2, 3))
    assert abs(deep[0].mean() - DEEP.mean()) < 0.02 * DEEP.mean()


@pytest.mark.parametrize(
    ("resize", "error"), [(0, ValueError), ((2, 0), ValueError), ((2,), TypeError), ("2", TypeError), (2.5, TypeError)]
)
def test_sizes_are_checked(tmp_path, resize, error):
    with pytest.raises(error, match=r"^resize: expected"):
        images.load(folder(tmp_path / "set", {}), resize=resize)


def test_a_validation_part_and_parts_in_memory(tmp_path):
    for part, count in (("train", 4), ("val", 2), ("test", 3)):
        folder(tmp_path / part, {}, count=count)
    made = images.loaders(tmp_path)
    assert [len(loader.dataset) for loader in made] == [8, 4, 6]
    assert images.loaders(tmp_path, val_fraction=0)[1] is None
    parts = tuple(loader.dataset for loader in made)
    assert [len(loader.dataset) for loader in images.loaders(parts)] == [8, 4, 6]
    assert [len(loader.dataset) for loader in images.loaders(parts[::2], val_fraction=0.25)] == [6, 2, 6]
    assert [len(part) for part in images.load(parts)] == [8, 6]
    for wrong, message in ((parts[:1], "got 1 sets"), ((parts[0], images.load("digits")[1]), "with the same classes")):
        with pytest.raises(ValueError, match=f"^name: expected .*{message}"):
            images.loaders(wrong)
    with pytest.raises(ValueError, match=r"^resize: expected None for images in memory"):
        images.loaders(parts, resize=2)


def test_code_names_images(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "images_of_mine.py").write_text(
        "from neuromorphic_datasets import images\ndef make():\n    return images.load('digits')\n"
    )
    train, test = images.load(f"{tmp_path}/images_of_mine.py:make")
    assert (len(train), len(test)) == (1437, 360)


def frames(form):
    buffer = io.BytesIO()
    Image.fromarray(GREY).save(buffer, form, save_all=True, append_images=[Image.fromarray(255 - GREY)])
    return buffer.getvalue()


def clear_palette():
    """A palette with an opacity for each colour, as pngquant writes it."""
    buffer = io.BytesIO()
    Image.fromarray(COLOUR).quantize(8).save(buffer, "PNG", transparency=bytes([255, 128] * 4))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.ppm", b"P6\n6 4\n65535\n" + np.dstack([DEEP] * 3).astype(">u2").tobytes(), "expected eight bits per c"),
        ("b.png", png16(2, np.dstack([DEEP] * 3)), "expected eight bits per colour, got more"),
        ("c.png", png16(6, np.dstack([DEEP] * 4)), "expected eight bits per colour, got more"),
        ("b.tif", saved(GREY.astype(np.float32) / 255, "TIFF"), "expected eight bits .* in Pillow's mode F"),
        ("c.tif", saved(GREY.astype(np.int32) * 1000, "TIFF"), "expected eight bits .* in Pillow's mode I"),
        ("a.jpg", saved(COLOUR, "JPEG", "CMYK"), "expected grey, or RGB of eight bits, got Pillow's mode CMYK"),
        ("d.png", saved(np.dstack([COLOUR, GREY]), "PNG"), "expected no transparency, got transparent pixels"),
        ("e.png", saved(GREY, "PNG", transparency=0), "expected no transparency, got transparent pixels"),
        ("f.png", clear_palette(), "expected no transparency, got transparent pixels"),
        ("a.gif", frames("GIF"), "expected one frame, got 2"),
        ("d.tif", frames("TIFF"), "expected one frame, got 2"),
        ("g.png", saved(COLOUR, "PNG"), r"expected shape \(4, 6\) and uint8 as in .*0\.png .*, got \(4, 6, 3\)"),
        ("h.png", saved(GREY, "PNG")[:60], "not an image"),
    ],
)  # fmt: skip
def test_what_eight_bits_do_not_hold_is_refused(tmp_path, name, content, message):
    root = folder(tmp_path / "set", {f"dog/{name}": content})
    with pytest.raises(ValueError, match=rf"{name}: {message}"):
        images.load(root)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"cat/notes.txt": b"a", "dog/a.heic": b"b"}, r"not read: 2 \(\.txt 1, \.heic 1\), the first cat/notes\.txt"),
        ({"README": b"a"}, r"not read: 1 \(no ending 1\), the first README"),
        ({"stray.png": saved(GREY, "PNG")}, r"not read: 1 \(\.png 1\), the first stray\.png"),
    ],
)
def test_files_that_are_not_read_are_counted(tmp_path, files, message):
    with pytest.warns(UserWarning, match=message):
        train, test = images.load(folder(tmp_path / "set", files))
    assert len(train) + len(test) == 10


def test_hidden_files_do_not_count(tmp_path):
    hidden = {"cat/.DS_Store": b"a", "dog/._a.png": b"b", "dog/.ipynb_checkpoints/0.png": b"c", ".git/config": b"d"}
    train, test = images.load(folder(tmp_path / "set", hidden))
    assert len(train) + len(test) == 10


def test_links_to_nothing_and_to_folders_are_counted(tmp_path):
    root = folder(tmp_path / "set", {}), folder(tmp_path / "elsewhere", {})
    (tmp_path / "set" / "cat" / "more").symlink_to(tmp_path / "elsewhere" / "cat")
    (tmp_path / "set" / "cat" / "lost.png").symlink_to(tmp_path / "nothing.png")
    with pytest.warns(UserWarning, match="not read: 2 "):
        images.load(root[0])
    (tmp_path / "set" / "owl").symlink_to(tmp_path / "elsewhere" / "dog")
    with pytest.warns(UserWarning, match="not read: 2 "):
        train, _ = images.load(root[0])
    assert train.classes == ["cat", "dog", "owl"]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (("train", "val"), r"got the parts \['train', 'val'\]"),
        (("Training", "Test"), r"got the parts \['Test', 'Training'\]"),
        (("training_set", "test2017"), r"got the parts \['test2017', 'training_set'\]"),
        (("train",), r"got the parts \['train'\]"),
        (("train", "extra"), r"got the parts \['train'\]"),
    ],
)
def test_parts_are_not_classes(tmp_path, parts, message):
    for part in parts:
        folder(tmp_path / "set" / part, {})
    with pytest.raises(ValueError, match=f"expected a folder for each class, {message}"):
        images.load(str(tmp_path / "set"))


def test_a_train_may_be_a_class(tmp_path):
    train, _ = images.load(folder(tmp_path / "set", {}, ("bus", "car", "train")))
    assert train.classes == ["bus", "car", "train"]


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (("cat", "dog"), ("cat", "dog", "owl"), "owl"),
        (("cat", "dog", "owl"), ("cat", "dog"), "owl"),
    ],
)
def test_a_class_in_one_part_only_is_refused(tmp_path, train, test, message):
    folder(tmp_path / "set" / "train", {}, train)
    folder(tmp_path / "set" / "test", {}, test)
    with pytest.raises(ValueError, match=f"expected the same class folders in train and test, .*{message}"):
        images.load(str(tmp_path / "set"))


def test_an_empty_class_is_refused(tmp_path):
    for part in ("train", "test"):
        folder(tmp_path / "set" / part, {})
        (tmp_path / "set" / part / "owl").mkdir()
    (tmp_path / "set" / "train" / "owl" / "a.heic").write_bytes(b"a")
    with pytest.raises(FileNotFoundError, match=r"train: expected images .* got none in \['owl'\]; .* 1 \(\.heic 1\)"):
        images.load(str(tmp_path / "set"))


def test_parts_of_two_shapes_are_refused(tmp_path):
    folder(tmp_path / "set" / "train", {})
    for name in ("cat", "dog"):
        (tmp_path / "set" / "test" / name).mkdir(parents=True)
        Image.fromarray(COLOUR).save(tmp_path / "set" / "test" / name / "0.png")
    with pytest.raises(
        ValueError, match=r"test: expected images of shape \(1, 4, 6\) and uint8 as in training, got \(3, 4, 6\)"
    ):
        images.load(str(tmp_path / "set"))


def test_folders_of_a_published_set_name_its_classes(tmp_path):
    names = ["truck", "7", "00"]
    for part in ("train", "test"):
        folder(tmp_path / "some" / part, {}, names, 1)
        folder(tmp_path / "others" / part, {}, ["truck", "tank"], 1)
    train, test = images.load("cifar10", root=tmp_path / "some")
    assert train.targets.tolist() == test.targets.tolist() == [0, 7, 9]
    with pytest.raises(ValueError, match=r"train: expected folders named as \['airplane', .* got \['tank'\]"):
        images.load("cifar10", root=tmp_path / "others")


PIXELS, LABELS = np.zeros((10, 8, 9, 3), np.uint8), np.arange(10)


def npz(path, images=PIXELS, labels=LABELS, **others):
    np.savez(path, x_train=images, y_train=labels, x_test=PIXELS, y_test=LABELS, **others)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (PIXELS.transpose(0, 3, 1, 2), r"expected uint8 or uint16 images \(n, height, .* of shape \(10, 3, 8"),
        (PIXELS.astype(np.float32), "expected uint8 or uint16 images .* got float32"),
        (PIXELS.astype(np.float64) / 255, "expected uint8 or uint16 images .* got float64"),
        (PIXELS.astype(np.int16) - 1, "expected uint8 or uint16 images .* got int16"),
        (PIXELS.astype(np.uint16), r"expected images of shape .* and uint16 as in training"),
        (PIXELS.reshape(10, -1), r"expected uint8 or uint16 images .* of shape \(10, 216\)"),
    ],
)  # fmt: skip
def test_arrays_of_another_form_name_their_file(tmp_path, pixels, message):
    npz(tmp_path / "a.npz", pixels)
    with pytest.raises(ValueError, match=rf"a\.npz: {message}"):
        images.load("cifar10", root=tmp_path)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS + 0.5, r"expected labels in \[0, 9\], got 0.5 for image 0"),
        (np.where(LABELS == 3, np.nan, LABELS), r"expected labels in \[0, 9\], got nan for image 3"),
        (LABELS - 1, r"expected labels in \[0, 9\], got -1 for image 0"),
        (LABELS + 1, r"expected labels in \[0, 9\], got 10 for image 9"),
        (LABELS.reshape(2, 5), r"expected 10 labels, one per image, got int64 of shape \(2, 5\)"),
        (np.eye(10, dtype=np.uint8), r"expected 10 labels, one per image, got uint8 of shape \(10, 10\)"),
        (LABELS.astype(str), "expected 10 labels, one per image, got <U"),
        (LABELS[:9], r"expected 10 labels, one per image, got int64 of shape \(9,\)"),
    ],
)
def test_labels_that_are_not_classes_are_refused(tmp_path, labels, message):
    npz(tmp_path / "a.npz", labels=labels)
    with pytest.raises(ValueError, match=rf"a\.npz: {message}"):
        images.load("cifar10", root=tmp_path)
    with pytest.raises(ValueError, match=f"^targets: {message}"):
        images.Images(PIXELS.transpose(0, 3, 1, 2), labels, [str(i) for i in range(10)])


def test_whole_floats_and_columns_of_labels_are_read(tmp_path):
    for labels in (LABELS.astype(np.float32), LABELS[:, None], LABELS.astype(np.uint8)):
        npz(tmp_path / "a.npz", labels=labels)
        assert images.load("cifar10", root=tmp_path)[0].targets.tolist() == LABELS.tolist()


def test_only_one_local_copy_and_all_of_its_arrays(tmp_path):
    npz(tmp_path / "a.npz", x_val=PIXELS, y_val=LABELS)
    with pytest.warns(UserWarning, match=r"a\.npz: arrays that are not read: \['x_val', 'y_val'\]"):
        images.load("cifar10", root=tmp_path)
    npz(tmp_path / "b.npz")
    with pytest.raises(ValueError, match=r"^root: expected one local copy, got .*a\.npz.*b\.npz"):
        images.load("cifar10", root=tmp_path)
    assert len(images.load("cifar10", root=tmp_path / "b.npz")[0]) == 10
    with pytest.raises(FileNotFoundError, match=r"^root: expected a file, got nothing at .*c\.npz"):
        images.load("cifar10", root=tmp_path / "c.npz")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((np.full((1, 1, 2, 2), 0.5), [0], ["a"]), ValueError, "^images: expected uint8 .* got float64"),
        ((np.full((1, 1, 2, 2), 255, np.uint16), [0], ["a"]), ValueError, "^images: expected uint16 .* above 255"),
        ((np.zeros((1, 28, 28, 1), np.uint8), [0], ["a"]), ValueError, r"^images: .* of shape \(1, 28, 28, 1\)"),
        ((np.zeros((1, 28, 28), np.uint8), [0], ["a"]), ValueError, r"^images: .* of shape \(1, 28, 28\)"),
        ((np.zeros((1, 1, 2, 2), np.uint8), [0], "a"), TypeError, "^classes: expected a list of strings, got 'a'"),
        ((np.zeros((1, 1, 2, 2), np.uint8), [0], [0]), TypeError, r"^classes: expected a list of strings, got \[0\]"),
    ],
)  # fmt: skip
def test_images_checks_its_arrays(arguments, error, message):
    with pytest.raises(error, match=message):
        images.Images(*arguments)


def test_a_name_is_a_string_or_a_path(tmp_path):
    with pytest.raises(TypeError, match=r"^name: expected one of .* got int 5"):
        images.load(5)
    folder(tmp_path / "set", {})
    assert len(images.load(tmp_path / "set")[0]) == 8


def test_signed_depths_are_refused(tmp_path):
    """A TIFF of signed 16 bits, whose -1 would become white; Pillow does not write one."""
    values = np.array([[-1, -1000], [5, 300]], "<i2")
    tags = [(256, 2), (257, 2), (258, 16), (259, 1), (262, 1), (273, 8), (277, 1), (278, 2), (279, 8), (339, 2)]
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value) for tag, value in tags)
    content = b"II*\0" + struct.pack("<I", 16) + values.tobytes() + struct.pack("<H", len(tags)) + entries + bytes(4)
    with pytest.raises(ValueError, match=r"a\.tif: expected eight bits per colour, got more, in Pillow's mode"):
        only(tmp_path, "a.tif", content)
