"""The claim about convolutional networks, with the smallest ones."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from htaf_snn import training

sys.path.append(str(Path(__file__).parents[2]))  # at the end, so that the installed package is tested

from benchmarks.evidence import claims, page, running

NAMES = ("convolutional-fashion-mnist", "convolutional-cifar10")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("quick", [False, True])
def test_settings_are_valid_and_twins_differ_in_the_model_alone(name, quick):
    claim = claims.named(name)
    for recipe in (claim.quick if quick else claim.recipes).values():
        for model, twin in claim.twins.items():
            runs = [training.Run(**{**claim.arms[name], **recipe, "model": name}) for name in (model, twin)]
            assert replace(runs[0], model=twin) == runs[1] and runs[0].schedule == "cosine"
    assert {*claim.arms} == {*claim.twins, *claim.twins.values()}


@pytest.mark.thorough
@pytest.mark.usefixtures("workers_here")
def test_the_claim_about_convolutional_networks(tmp_path):
    claim = claims.named(NAMES[0])
    arms = {arm: settings | ({"hidden": (4, 6)} if "hidden" in settings else {"width": 2})
            for arm, settings in claim.arms.items()}  # fmt: skip
    quick = {"digits": claim.quick["digits"] | {"train_fraction": 0.3}}
    path = running.run(replace(claim, arms=arms, quick=quick), quick=True, data=None, out=tmp_path, workers=1)
    result = json.loads(path.read_text())
    assert result["command"] == "python -m benchmarks.evidence run convolutional-fashion-mnist --quick"
    part = result["parts"]["digits"]
    assert [(row["arm"], len(row["accuracies"])) for row in part["models"]] == [(arm, 3) for arm in claim.arms]
    rows = {row["arm"]: row for row in part["models"]}
    for arm, twin in claim.twins.items():
        assert rows[arm]["comparison"]["difference"] == pytest.approx(rows[arm]["mean"] - rows[twin]["mean"])
        assert not rows[twin]["comparison"]
    for row in part["packed"]:
        assert row["packed_accuracy"] == row["test_accuracy"] == rows[row["arm"]]["accuracies"][0]
        assert 0 < row["packed_bytes"]
    residual, heaviside = part["packed"]
    assert "rounded" not in residual and len(heaviside["rounded"]["bits"]) == 2
    assert heaviside["rounded"]["val_accuracy"] >= heaviside["val_accuracy"]
    assert heaviside["rounded"]["packed_bytes"] < heaviside["packed_bytes"]
    text = page.page([result])
    assert f"| dhn-cnn | {rows['dhn-cnn']['mean']:.3f} | {rows['dhn-cnn']['std']:.3f} |" in text
    assert f"{100 * rows['dhn-cnn']['comparison']['difference']:+.1f} |" in text
    images = f"{part['data']['train']} training, 144 validation and 360 test images, batches of 64"
    assert images in text.replace("\n", " ") and part["data"]["train"] < 400
