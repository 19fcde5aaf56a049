"""Single trials: the measurements of a network, networks of images, times."""

import pytest
import torch
from studies import SMALL, STILL, one_trial

from htaf_snn.compare import Settings, Study, figures, measures, trial
from htaf_snn.configuration import Shared


class _Recordings:
    sensor_size = (5, 5, 2)
    classes = ("0", "1", "2")


def test_activity_counts_by_hand():
    model = trial.network(one_trial(width=3, depth=1), _Recordings())
    with torch.no_grad():
        linear = model.layers[0][1]
        linear.weight.zero_()
        linear.bias.copy_(torch.tensor([5.0, -5.0, 0.0]))  # always, never, never
        linear.weight[0, 7] = 1e-9
    frames = torch.zeros(4, 2, 2, 5, 5)
    frames[:, 0, 0, 1, 2] = 1  # input 7, in each of four time steps of one of two recordings
    measured = measures.activity(model, [(frames, torch.zeros(2))])
    assert measured["saturated"] == [pytest.approx(1 / 3)]
    assert measured["dead"] == [pytest.approx(2 / 3)]
    assert measured["spike_rate"] == [pytest.approx(1 / 3)]
    # Four accumulations at the first layer; the readout sees rates: one active neuron times three classes, twice.
    assert measured["acs"] + measured["macs"] == pytest.approx((4 + 2 * 3) / 2)
    assert measured["energy_nj"] == pytest.approx((measured["acs"] * 0.9 + measured["macs"] * 4.6) / 1e3)


def test_gradients_and_their_cosine():
    torch.manual_seed(0)
    model = trial.network(one_trial(width=6), _Recordings())
    frames, labels = torch.rand(3, 4, 2, 5, 5), torch.tensor([0, 1, 2, 0])
    gradient = measures.batch_gradient(model, frames, labels)
    torch.nn.functional.cross_entropy(model(frames), labels).backward()
    expected = torch.cat([p.grad.flatten() for p in model.parameters()])
    torch.testing.assert_close(gradient["flat"], expected)
    first = torch.cat([p.grad.flatten() for p in model.layers[0].parameters()])
    assert gradient["layers"][0] == pytest.approx(first.norm().item())
    assert [len(steps) for steps in gradient["steps"]] == [3, 3]
    assert measures.cosine(expected, expected * 3) == pytest.approx(1)
    assert measures.cosine(expected, -expected) == pytest.approx(-1)
    assert measures.cosine(expected, torch.zeros_like(expected)) is None


def test_folds_test_every_recording_once():
    results = [trial.run(one_trial(seed=seed, folds=2, **SMALL)) for seed in (0, 1, 2)]
    assert results[0]["test_accuracy"] != results[1]["test_accuracy"]
    assert results[0]["gradient_layers"] != results[2]["gradient_layers"]


def test_a_smooth_surrogate_is_tested_hard_and_reports_its_gap():
    result = trial.run(one_trial("htaf(hardness=0.0)", **SMALL))
    assert result["hardening_gap"] == pytest.approx(result["smooth_test_accuracy"] - result["test_accuracy"])
    assert trial.run(one_trial("htaf", **SMALL))["hardening_gap"] == 0.0


@pytest.mark.thorough
@pytest.mark.usefixtures("workers_here")
@pytest.mark.parametrize("model", ["bnn", "dhn"])
def test_surrogates_of_binary_networks_are_compared(tmp_path, model):
    small = STILL | {"batch_size": 64, "schedule": "cosine"}
    study = Study(tmp_path, model=model, seeds=1, anneal=["none", "alpha"], **small)
    assert study.settings.dataset == ("digits",)
    with pytest.raises(ValueError, match=f"^stack_seeds: model: expected mlp, got {model}"):
        study.run(stack_seeds=True)
    assert study.run(workers=1, progress=False)["finished"] == len(study.settings.arms()) == 7
    table = study.table()
    assert all(row["hardening_gap"] == 0.0 for row in table if row["anneal"] == "none")
    [row] = [row for row in table if (row["surrogate"], row["anneal"]) == ("htaf", "alpha")]
    [result] = [
        line["result"]
        for line in study.results()
        if (line["config"]["surrogate"], line["config"]["anneal"]) == ("htaf", "alpha")
    ]
    assert row["hardening_gap"] == result["hardening_gap"]
    assert row["hardening_gap"] == result["smooth_test_accuracy"] - result["test_accuracy"] != 0
    rows = {row["surrogate"]: row for row in table if row["anneal"] == "none"}
    assert rows["htaf"]["cosine_end"] == pytest.approx(1)
    assert -1 <= rows["ede"]["cosine_end"] < 0.99
    text = study.report().read_text()
    assert f"--model {model} --dataset digits" in text
    assert "Mean norm over layers" in text
    assert "not available" not in text


def test_another_librarys_surrogate_works_in_a_binary_network(one_thread):
    """snnTorch's atan equals this package's, so both train the same network."""
    small = STILL | {"model": "dhn", "dataset": "digits", "slope": 2.0, "match": "peak"}
    ours, theirs = (trial.run(one_trial(name, **small)) for name in ("atan", "snntorch.atan"))
    for name in ("test_loss", "spike_rate", "gradient_layers", "gain"):
        assert theirs[name] == pytest.approx(ours[name], rel=1e-3), name
    assert ours["gain"] == pytest.approx(0.5)
    assert ours["stretch"] == 2.0


def test_activity_of_images_counts_by_hand():
    class Images:
        images, classes = torch.zeros(1, 1, 1, 4), ("0", "1", "2")

    model = trial.network(one_trial(width=2, depth=1, model="bnn"), Images()).eval()
    norm = model[3]
    norm.bias.data = torch.tensor([9.0, -9.0])
    measured = measures.activity(
        model, [(torch.tensor([[[[0.0, 1.0, 0.5, 0.0]]], [[[0.25, 0.0, 0.0, 0.0]]]]), torch.zeros(2))]
    )
    assert (measured["spike_rate"], measured["dead"], measured["saturated"]) == ([0.5], [0.5], [0.5])
    # Three non-zero inputs, two neurons; then two activations of -1 or 1, three classes, twice.
    assert (measured["macs"], measured["acs"]) == (3 * 2 / 2, 2 * 3)


@pytest.mark.parametrize("steps", [3, 1])
def test_gradients_of_several_depths_are_drawn(steps):
    """Over time steps at the first layer of all depths, otherwise over the layers of the deepest networks."""
    trials = [
        {
            "config": {"surrogate": name, "anneal": "none", "identity": 0.0, "variant": "", "place": ""},
            "result": {"gradient_steps": [[float(depth)] * steps] * depth},
        }
        for name in ("htaf", "atan")
        for depth in (2, 4)
    ]
    figure = figures.gradients(trials)
    assert f"htaf {3 if steps > 1 else 4}, atan {3 if steps > 1 else 4}." in figure.text
    assert "<svg" in figure.svg


def test_measuring_gradients_leaves_the_network_as_it_was():
    class Images:
        images, classes = torch.zeros(1, 1, 2, 2), ("0", "1")

    config = one_trial("htaf(learn=('alpha', 'beta'))", model="dhn")
    model = trial.network(config, Images())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    gradient = measures.batch_gradient(model, torch.rand(5, 1, 2, 2), torch.tensor([0, 1, 0, 1, 1]))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    learned = sum(p.numel() for n, p in model.named_parameters() if "surrogate" in n)
    assert learned > 0
    assert len(gradient["flat"]) == sum(p.numel() for p in model.parameters()) - learned
    assert [len(steps) for steps in gradient["steps"]] == [1, 1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "cnn"}, "^model: expected one of mlp, bnn, dhn, got 'cnn'"),
        ({"model": "bnn", "dataset": "nmnist"}, "^dataset: expected one of \\['cifar10'"),
        ({"model": "dhn", "folds": 3}, "^folds: expected None for a model of images"),
        ({"model": "bnn", "weight_surrogate": "magic"}, "magic"),
        ({"model": "dhn", "n_time_bins": 5}, "^n_time_bins: 5 has no effect on the model dhn, only on mlp, cnn"),
        ({"weight_surrogate": "ede"}, "^weight_surrogate: 'ede' has no effect on the model mlp, only on bnn"),
        (
            {"surrogates": ["htaf"], "anneal": "hardness", "alpha_end": 9.0},
            "^alpha_end: 9.0 has no effect without anneal=alpha",
        ),
        ({"alpha_end": 9.0}, r"^alpha_end: 9.0 has no effect without anneal=alpha"),
        ({"anneal": ["none", "beta"]}, "^anneal: expected one of none, hardness, alpha, width, got 'beta'"),
        ({"surrogates": ["snntorch.atan"], "anneal": ["none", "hardness"]}, "^anneal: expected a surrogate with which"),
        (
            {"surrogates": ["htaf", "sigmoid"], "anneal": "alpha"},
            "^surrogates: expected one with a smooth step, .*'sigm",
        ),
        ({"select": "val"}, "^select: expected none with one slope and one learning rate, got val"),
        ({"select": "val", "lrs": [1e-3, 1e-2], "folds": 5}, "^select: expected none with folds"),
        ({"identity": -1}, r"^identity: expected finite numbers >= 0, got \[-1.0\]"),
        ({"identity": [0, 1], "depths": [1]}, "^identity: 1.0 has no effect without two hidden layers"),
        ({"model": "bnn", "surrogates": ["relu", "htaf"], "weight_surrogate": "magic"}, "magic"),
        ({"surrogates": ["htaf", "relu"]}, "^surrogates: 'relu', the floating-point twin, is only for bnn, dhn"),
        ({"select": "test"}, "^select: expected one of none, val, got 'test'"),
        ({"select_seeds": 2}, "^select_seeds: expected none without select=val, got 2"),
        ({"select": "val", "lrs": [1e-3, 1e-2], "select_seeds": 6}, "^select_seeds: expected none or 1 to 5, got 6"),
        ({"model": "bnn", "norm": "none"}, "^norm: 'none' has no effect on the model bnn, only on mlp, dhn, relu"),
        ({"model": "bnn", "data_root": "data"}, "^root: expected None, as digits are generated, got"),
        ({"schedule": "linear"}, "^schedule: expected one of constant"),
        ({"val_fraction": 0.0}, "^val_fraction: expected more than 0 for a study"),
        ({"loss": "tet", "model": "dhn"}, "^loss: 'tet' has no effect on the model dhn"),
        ({"neuron": "magic"}, "^neuron: expected"),
        ({"neuron": "lif_refrac"}, "^surrogate: expected one of htaf_snn .* for lif_refrac"),
    ],
)
def test_wrong_settings_of_binary_studies(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        Study(tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_what_a_study_varies_is_not_shared():
    for field in ({"lr": 0.5}, {"library": "snntorch"}, {"early_stopping": 3}):
        with pytest.raises(ValueError, match=f"^shared: expected no {next(iter(field))}, which a study varies"):
            Settings(shared=Shared(**field))


def test_validation_is_of_the_network_that_is_tested(one_thread):
    result = trial.run(one_trial(keep="best", **SMALL | {"epochs": 4, "lr": 0.1}))
    accuracies = [line["val_accuracy"] for line in result["curves"]]
    assert result["val_accuracy"] == max(accuracies) != accuracies[-1]


def test_a_check_leaves_the_random_state_alone(tmp_path):
    before = torch.get_rng_state()
    Study(tmp_path, surrogates=["htaf"], seeds=1, **SMALL)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_time_per_step_is_that_of_the_fastest_epoch(monkeypatch, one_thread):
    fitted = trial.training.fit

    def fit(*arguments, **options):
        curves = fitted(*arguments, **options)
        return [{**line, "seconds": seconds} for line, seconds in zip(curves, (9, 2, 3), strict=True)]

    monkeypatch.setattr(trial.training, "fit", fit)
    config = one_trial(**SMALL | {"epochs": 3})
    steps = len(trial.training.make_loaders(config.run)[0])
    assert trial.run(config)["times"]["ms_per_batch"] == 2000 / steps


def test_the_memory_of_a_gpu_is_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 7 * 2**20)
    lines = [{"seconds": 1.0}]
    assert trial.times([None], 1.0, lines, torch.device("cuda", 0))["peak_mb"] == 7
    assert trial.times([None], 1.0, lines, torch.device("cpu"))["peak_mb"] > 50
