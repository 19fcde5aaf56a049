"""Changes by a subclass or a user take effect in loaders, or are refused by name."""

import numpy as np
import pytest
from torch.utils.data import DataLoader

import neuromorphic_datasets as nd
from neuromorphic_datasets import EventDataset, EventFolder, images, loaders, to_frames, transforms
from neuromorphic_datasets._dataset import fingerprint_of

SIZE = (4, 3, 2)
EVENTS = np.array([(t % 4, t % 3, t, t % 2) for t in range(8)], [(field, "i8") for field in "xytp"])
HALVES = {"val_fraction": 0, "test_fraction": 0.5}


class Own(EventDataset):
    """Four recordings of the same eight events."""

    def __init__(self, count=4, size=SIZE, **options):
        super().__init__("own", "all", size, ["a", "b"], np.arange(count) % 2, **options)

    def events(self, position):
        return EVENTS.copy()


def first(events):
    return events[:3]


def counts(recordings, cache, **options):
    """Return the number of events of each recording in all parts."""
    parts = loaders(recordings, cache=cache, **HALVES, **options)
    return [int(part.dataset[i][0].sum()) for part in parts if part for i in range(len(part.dataset))]


def as_is(samples):
    return samples


@pytest.mark.parametrize("kind", ["frames", "events", "windows", "images"])
def test_samples_travel_between_processes(tmp_path, kind):
    options = {"frames": {"n_time_bins": 1}, "events": {"n_time_bins": 99}, "windows": {"time_window": 3}}
    train = (
        images.loaders("digits")[0]
        if kind == "images"
        else loaders(Own(), cache=tmp_path, **HALVES, **options[kind])[0]
    )
    loader = DataLoader(train.dataset, 2, num_workers=1, collate_fn=as_is, timeout=60)
    batch = next(iter(loader))
    assert type(batch) is list
    for sample, expected in zip(batch, (train.dataset[0], train.dataset[1]), strict=True):
        np.testing.assert_array_equal(sample[0], expected[0])
        assert sample[1:] == expected[1:]


@pytest.mark.parametrize("told", [lambda self: "1", ["1"], np.arange(2), None, 3])
def test_a_fingerprint_is_a_string(tmp_path, told):
    kind = type("Told", (Own,), {"fingerprint": told})
    with pytest.raises(TypeError, match=r"^fingerprint: expected a string, got .* of type \w+(; write @property.*)?$"):
        loaders(kind(), cache=tmp_path, **HALVES)


def test_a_fingerprint_is_read_once(tmp_path):
    class Told(Own):
        asked = 0

        @property
        def fingerprint(self):
            self.asked += 1
            return str(self.asked)

    told = Told(4)
    loaders(told, cache=tmp_path, **HALVES)
    assert told.asked == 1


class Cut(Own):
    def __getitem__(self, index):
        events, label = super().__getitem__(index)
        return events[:3], label


class ByMethod(Own):
    def transform(self, events):
        return events[:3]


class ByAttribute(Own):
    transform = staticmethod(first)


class ByFrames(Own):
    transform = transforms.ToFrames(SIZE, n_time_bins=3)


class BeforeInit(Own):
    def __init__(self, **options):
        self.transform = first
        super().__init__(**options)


def test_an_own_getitem_is_refused(tmp_path, folder):
    class CutFolder(EventFolder):
        def __getitem__(self, index):
            return None

    for recordings in (Cut(), CutFolder(folder, cache=tmp_path)):
        with pytest.raises(TypeError, match=r"^name: expected .* got a Cut\w* with its own __getitem__"):
            loaders(recordings, cache=tmp_path, **HALVES)


@pytest.mark.parametrize("kind", [ByMethod, ByAttribute, BeforeInit])
def test_a_subclasss_transform_takes_effect(tmp_path, kind):
    assert len(kind()[0][0]) == 3
    assert counts(kind(), tmp_path) == [3] * 4
    with pytest.raises(ValueError, match=f"^transform: expected None, as {kind.__name__} has its own, got "):
        kind(transform=first)


def test_frames_of_a_subclass_take_effect(tmp_path):
    _, _, test = loaders(ByFrames(), cache=tmp_path, **HALVES)
    np.testing.assert_array_equal(test.dataset[0][0], to_frames(EVENTS, SIZE, n_time_bins=3))
    with pytest.raises(TypeError, match=r"^transform: expected a callable or None, got 3"):
        type("Wrong", (Own,), {"transform": 3})()


def test_frames_made_in_another_way_are_refused(tmp_path):
    class Binary(transforms.ToFrames):
        def __call__(self, events):
            return (super().__call__(events) > 0).astype(np.int16)

    class Five(transforms.ToFrames):
        def __init__(self, size):
            super().__init__(size, n_time_bins=5)
            object.__setattr__(self, "note", "five")

    with pytest.raises(TypeError, match=r"^transform: expected ToFrames or .* with its own __call__"):
        loaders(Own(transform=Binary(SIZE, n_time_bins=1)), cache=tmp_path, **HALVES)
    assert loaders(Own(transform=Five(SIZE)), cache=tmp_path, **HALVES)[2].dataset[0][0].shape[0] == 5


@pytest.fixture
def folder(tmp_path):
    """Four recordings of each of two classes; x is the label and y the number."""
    for label, name in enumerate("ab"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for number in range(4):
            np.save(tmp_path / "mine" / name / f"{number}.npy", np.array([(label, number, 0, 1)], EVENTS.dtype))
    return tmp_path / "mine"


@pytest.mark.parametrize("choose", [lambda n: n[n % 4 > 0], lambda n: n[::-1], lambda n: np.delete(n, [2, 5])])
def test_files_and_labels_stay_together(folder, tmp_path, choose):
    recordings = EventFolder(folder, cache=tmp_path)
    chosen = choose(np.arange(8))
    recordings.files, recordings.targets = [recordings.files[i] for i in chosen], recordings.targets[chosen]
    assert [(int(events["x"][0]), int(events["y"][0])) for events, _ in recordings] == [(i // 4, i % 4) for i in chosen]
    for part in loaders(recordings, **HALVES)[::2]:
        for frames, label in part.dataset:
            assert frames.sum((0, 1, 2)).nonzero().item() == label


def test_files_without_labels_are_refused(folder, tmp_path):
    recordings = EventFolder(folder, cache=tmp_path)
    recordings.targets = recordings.targets[2:]
    for use in (lambda: recordings[0], lambda: loaders(recordings, **HALVES)):
        with pytest.raises(ValueError, match=r"^targets: expected 8, one per file, got 6"):
            use()
    recordings.files = [folder / "a" / "new.npy"] * 6
    with pytest.raises(ValueError, match=r"^files: expected only recordings that were read when the folder .*new\.npy"):
        recordings[0]


def test_events_set_on_a_folder_take_effect(folder, tmp_path):
    recordings = EventFolder(folder, cache=tmp_path)
    recordings.events = lambda position: np.repeat(EVENTS[:1], position + 1)
    assert sorted(counts(recordings, tmp_path)) == list(range(1, 9))


def test_files_are_looked_at_once(folder, tmp_path, monkeypatch):
    from neuromorphic_datasets import _files

    asked = []
    monkeypatch.setattr(_files, "fingerprint_of", lambda files: asked.append(1) or fingerprint_of(files))
    EventFolder(folder, cache=tmp_path)
    assert len(asked) == 1


def test_a_decoders_version_is_in_the_key(folder, tmp_path, monkeypatch):
    from neuromorphic_datasets import _packing

    EventFolder(folder, cache=tmp_path)
    monkeypatch.setattr(_packing, "version_of", lambda name: "0")
    _packing._code.cache_clear()
    EventFolder(folder, cache=tmp_path)
    monkeypatch.undo()
    _packing._code.cache_clear()
    assert len(list(tmp_path.glob("*.pack"))) == 2


def test_folders_of_python_and_macos_are_not_classes(folder, tmp_path):
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "a.pyc").write_bytes(b"code")
    (folder / "__MACOSX").mkdir()
    assert EventFolder(folder, cache=tmp_path).classes == ["a", "b"]


# Polarities.


def signed(*polarities):
    return np.array([(0, 0, t, p) for t, p in enumerate(polarities)], EVENTS.dtype)


@pytest.mark.parametrize("polarities", [(-1, 1, 1), (1, -1, 1), (-1, -1, -1)])
def test_signs_are_off_and_on(tmp_path, polarities):
    events = signed(*polarities)
    expected = [sum(p < 0 for p in polarities), sum(p > 0 for p in polarities)]
    assert to_frames(events, SIZE, n_time_bins=1)[0, :, 0, 0].tolist() == expected
    assert nd.batch_to_frames([events], SIZE, n_time_bins=1)[0, 0, :, 0, 0].tolist() == expected
    own = Own()
    own.events = lambda position: events
    for options in ({"n_time_bins": 1}, {"time_window": 99}):
        for frames, *_ in loaders(own, cache=tmp_path, **HALVES, **options)[2]:
            assert frames[0, :, :, 0, 0].tolist() == [expected] * frames.shape[1]
    np.save(tmp_path / "a.npy", events)
    assert nd.read_events(tmp_path / "a.npy")["p"].tolist() == [p > 0 for p in polarities]


@pytest.mark.parametrize(("polarities", "size"), [((-1, 0), SIZE), ((0, -2), SIZE), ((7, 7), (4, 3, 1)), ((2,), SIZE)])
def test_other_polarities_are_refused(tmp_path, polarities, size):
    own = Own(size=size)
    own.events = lambda position: signed(*polarities)
    with pytest.raises(nd.RecordingError, match=r"^own all, recording 0: events: "):
        loaders(own, cache=tmp_path, **HALVES)
    np.save(tmp_path / "a.npy", signed(*polarities))
    with pytest.raises(nd.RecordingError, match="expected p to be 0 or 1"):
        nd.read_events(tmp_path / "a.npy")
