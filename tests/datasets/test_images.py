"""Still images: bundled, and from local copies of every kind."""

import gzip
import struct

import numpy as np
import pytest
import torch
from folders import real_data
from image_folders import write_images
from PIL import Image

from neuromorphic_datasets import images

RNG = np.random.default_rng(0)
TRAIN = RNG.integers(256, size=(20, 28, 28), dtype=np.uint8), np.arange(20) % 10
TEST = RNG.integers(256, size=(10, 28, 28), dtype=np.uint8), np.arange(10)


def idx(folder, packed=False, train=TRAIN, test=TEST):
    for part, (pixels, labels) in (("train", train), ("t10k", test)):
        files = {
            "images-idx3": struct.pack(">4I", 2051, *pixels.shape) + pixels.tobytes(),
            "labels-idx1": struct.pack(">2I", 2049, len(labels)) + labels.astype(np.uint8).tobytes(),
        }
        for kind, content in files.items():
            name = f"{part}-{kind}-ubyte"
            (folder / (f"{name}.gz" if packed else name)).write_bytes(gzip.compress(content) if packed else content)


def npz(folder, train=TRAIN, test=TEST):
    np.savez(folder / "subset.npz", x_train=train[0], y_train=train[1], x_test=test[0], y_test=test[1])


def class_folders(folder):
    for part, (pixels, labels) in (("train", TRAIN), ("test", TEST)):
        for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
            (folder / part / str(label)).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / part / str(label) / f"{number:03}.png")


def test_digits_are_bundled_and_always_divided_alike():
    train, test = images.load("digits")
    assert (len(train), len(test)) == (1437, 360)
    image, label = train[0]
    assert (image.shape, image.dtype, type(label)) == ((1, 8, 8), torch.float32, int)
    assert train.images.max() == 255
    assert images.load("digits")[1].targets.tolist() == test.targets.tolist()
    assert set(np.bincount(test.targets)) <= {35, 36, 37}


@pytest.mark.parametrize("write", [idx, lambda folder: idx(folder, packed=True), npz, class_folders])
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_local_copies(tmp_path, write, name):
    write(tmp_path)
    for part, (pixels, labels) in zip(images.load(name, root=tmp_path), (TRAIN, TEST), strict=True):
        assert len(part.classes) == 10
        order = np.argsort(labels, kind="stable") if write is class_folders else np.arange(len(labels))
        assert part.targets.tolist() == labels[order].tolist()
        np.testing.assert_array_equal(part.images[:, 0].numpy(), pixels[order])
        image, label = part[1]
        assert label == labels[order][1]
        np.testing.assert_allclose(image[0].numpy(), pixels[order][1] / 255, rtol=1e-6)


def test_colours_become_channels(tmp_path):
    colour = RNG.integers(256, size=(4, 32, 32, 3), dtype=np.uint8), np.array([[0], [9], [3], [3]])
    npz(tmp_path, colour, colour)
    train, _ = images.load("cifar10", root=tmp_path)
    assert train[2][0].shape == (3, 32, 32)
    assert train.classes[train[1][1]] == "truck"
    np.testing.assert_array_equal(train.images[0].permute(1, 2, 0).numpy(), colour[0][0])


def test_batches(tmp_path):
    loader = torch.utils.data.DataLoader(images.load("digits")[0], batch_size=7)
    pixels, labels = next(iter(loader))
    assert (pixels.shape, labels.dtype) == ((7, 1, 8, 8), torch.int64)


def test_loaders_divide_and_shuffle_by_seed():
    train, val, test = images.loaders("digits", batch_size=50, val_fraction=0.2, seed=3)
    everything = images.load("digits")
    assert [len(part.dataset) for part in (train, val, test)] == [1149, 288, 360]
    orders = []
    for epoch in (0, 1, 0):
        train.sampler.set_epoch(epoch)
        orders.append(torch.cat([labels for _, labels in train]))
    assert torch.equal(orders[0], orders[2])
    assert not torch.equal(orders[0], orders[1])
    pixels, labels = next(iter(test))
    assert torch.equal(pixels, torch.stack([everything[1][i][0] for i in range(50)]))
    assert torch.equal(labels, everything[1].targets[:50])
    both = torch.cat([train.dataset.images, val.dataset.images]).flatten(1)
    assert torch.equal(both.unique(dim=0), everything[0].images.flatten(1).unique(dim=0))
    assert images.loaders("digits", val_fraction=0)[1] is None


def test_a_fraction_of_the_training_images_is_trained_on():
    """It is stratified, and leaves the parts for validation and test as they are."""
    whole, part = (images.loaders("digits", train_fraction=fraction, seed=3) for fraction in (1.0, 0.25))
    assert [len(loader.dataset) for loader in part] == [323, 144, 360]
    for a, b in zip(whole[1:], part[1:], strict=True):
        assert torch.equal(a.dataset.images, b.dataset.images)
    rows = {image.numpy().tobytes() for image in whole[0].dataset.images}
    assert {image.numpy().tobytes() for image in part[0].dataset.images} < rows
    shares = [torch.bincount(loader.dataset.targets) / len(loader.dataset) for loader in (whole[0], part[0])]
    assert torch.allclose(*shares, atol=0.01)


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"val_fraction": 1.0}, "val_fraction"),
        ({"train_fraction": 0.0}, "train_fraction"),
        ({"train_fraction": 1.5}, "train_fraction"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_options_of_loaders_are_named(options, argument):
    with pytest.raises(ValueError, match=f"^{argument}"):
        images.loaders("digits", **options)


def test_missing_files_are_reported(tmp_path):
    for name in ("mnist", "fashion-mnist", "cifar10"):
        for root in (tmp_path, tmp_path / "none"):
            with pytest.raises(
                FileNotFoundError, match=rf"root: expected {name} in .* pass download=True \(in a command "
            ):
                images.load(name, root=root)
    with pytest.raises(ValueError, match=r"^name: expected one of \['cifar10', .* of your own, got 'svhn'"):
        images.load("svhn")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-1], r"expected 7840 values of shape \(10, 28, 28\), got 7839"),
        (lambda content: b"\1" + content[1:], "byte 0: expected an idx file"),
        (lambda content: b"", "byte 0: expected an idx file"),
    ],
)
def test_damaged_idx_files(tmp_path, damage, message):
    idx(tmp_path)
    path = tmp_path / "t10k-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=rf"{path.name}: {message}|{path.name}: byte \d+: {message}"):
        images.load("mnist", root=tmp_path)


def test_other_damage(tmp_path):
    (tmp_path / "gz").mkdir()
    idx(tmp_path / "gz", packed=True)
    path = tmp_path / "gz" / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte\.gz: damaged"):
        images.load("mnist", root=tmp_path / "gz")
    (tmp_path / "npz").mkdir()
    (tmp_path / "npz" / "a.npz").write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match=r"a\.npz: expected x_train"):
        images.load("mnist", root=tmp_path / "npz")
    class_folders(tmp_path / "folders")
    (tmp_path / "folders" / "test" / "3" / "bad.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"bad\.png: not an image"):
        images.load("mnist", root=tmp_path / "folders")
    Image.fromarray(TRAIN[0][0][:5]).save(tmp_path / "folders" / "test" / "3" / "bad.png")
    with pytest.raises(
        ValueError, match=r"bad\.png: expected shape \(28, 28\) .* as in .*000.png .*, got \(5, 28\) and uint8; resize"
    ):
        images.load("mnist", root=tmp_path / "folders")
    (tmp_path / "labels").mkdir()
    npz(tmp_path / "labels", (TRAIN[0], TRAIN[1] + 5))
    with pytest.raises(ValueError, match=r"expected labels in \[0, 9\], got 10 for image 5"):
        images.load("mnist", root=tmp_path / "labels")
    (tmp_path / "floats").mkdir()
    npz(tmp_path / "floats", (TRAIN[0] / 255, TRAIN[1]))
    with pytest.raises(ValueError, match="expected uint8 or uint16 images"):
        images.load("mnist", root=tmp_path / "floats")


@pytest.mark.real_data
def test_real_copies():
    train, test = images.load("fashion-mnist", root=real_data("fashion_mnist"))
    assert (len(train), len(test), train[0][0].shape) == (60_000, 10_000, (1, 28, 28))
    assert train.classes[train[0][1]] == "Ankle boot"
    assert np.bincount(test.targets).tolist() == [1000] * 10
    train, test = images.load("cifar10", root=real_data("cifar10"))
    assert (len(train), len(test), train[0][0].shape) == (10_000, 2_000, (3, 32, 32))


def test_images_of_ones_own(tmp_path):
    write_images(tmp_path / "all", ["cat", "dog"], 10)
    train, test = images.load(str(tmp_path / "all"))
    assert train.classes == ["cat", "dog"]
    assert [len(train), len(test)] == [16, 4]
    assert test.targets.bincount().tolist() == [2, 2]
    assert train[0][0].shape == (1, 6, 5)
    assert {*train.images.unique().tolist(), *test.images.unique().tolist()} == set(range(20))
    write_images(tmp_path / "parts" / "train", ["cat", "dog"], 3)
    write_images(tmp_path / "parts" / "test", ["cat", "dog"], 1)
    assert [len(part) for part in images.load(str(tmp_path / "parts"))] == [6, 2]


def test_unusable_images_of_ones_own_are_refused(tmp_path):
    write_images(tmp_path / "one", ["cat"], 10)
    write_images(tmp_path / "few", ["cat", "dog"], 2)
    write_images(tmp_path / "broken", ["cat", "dog"], 10)
    (tmp_path / "broken" / "dog" / "3.png").write_bytes(b"not an image")
    for name, message in (
        ("one", "expected two or more class folders"),
        ("few", "expected at least five images per class"),
        ("broken", r"3\.png: not an image"),
    ):
        with pytest.raises(ValueError, match=message):
            images.load(str(tmp_path / name))


def test_a_root_is_refused_where_there_is_no_copy(tmp_path):
    write_images(tmp_path / "mine", ["cat", "dog"], 10, (8, 8))
    (tmp_path / "mine" / ".checkpoints").mkdir()
    assert images.load(str(tmp_path / "mine"))[0].classes == ["cat", "dog"]
    for name in ("digits", str(tmp_path / "mine")):
        with pytest.raises(
            ValueError, match=r"^root: expected None, as digits|^root and download: expected only with a"
        ):
            images.load(name, root=tmp_path)


def test_a_download_is_refused_where_none_is_needed(tmp_path):
    write_images(tmp_path, ["cat", "dog"], 10, (8, 8))
    for name in ("digits", str(tmp_path)):
        for use in (images.load, images.loaders):
            with pytest.raises(
                ValueError, match=r"^download: expected False, as digits|^root and download: .* and True"
            ):
                use(name, download=True)


@pytest.mark.parametrize("write", [idx, npz, class_folders])
def test_a_class_that_is_only_tested_is_refused(tmp_path, write):
    if write is class_folders:
        write(tmp_path)
        for file in (tmp_path / "train" / "3").iterdir():
            file.unlink()
        (tmp_path / "train" / "3").rmdir()
    else:
        kept = TRAIN[1] != 3
        write(tmp_path, train=(TRAIN[0][kept], TRAIN[1][kept]))
    for use in (images.load, images.loaders):
        with pytest.raises(ValueError, match=r": expected every class of the test part in training, got none of \['3'"):
            use("mnist", root=tmp_path)
