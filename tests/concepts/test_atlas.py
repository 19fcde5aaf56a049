"""The atlas: its content, and its behaviour in a browser."""

import base64
import io
import json
import re

import numpy as np
import pytest
import torch
from browser import probe
from PIL import Image
from torch import nn

from htaf_snn import concepts, models

N, N_CONCEPTS, N_CLASSES = 1100, 11, 3
NAMES = ["<cat>", "dog", "owl"]


def new_model():
    torch.manual_seed(0)
    return models.ICBM(nn.Flatten(), N_CONCEPTS, N_CLASSES, in_features=3 * 6 * 5)


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.rand(N, 3, 6, 5, generator=generator), torch.randint(N_CLASSES, (N,), generator=generator)
    return [(images[:700], labels[:700]), (images[700:], labels[700:])]


@pytest.fixture(scope="module")
def model(data):
    model = new_model()
    for images, _ in data:
        model(images)
    return model.eval()


@pytest.fixture(scope="module")
def page(model, data, tmp_path_factory):
    path = tmp_path_factory.mktemp("atlas") / "atlas.html"
    concepts.write_atlas(model, data, path, classes=NAMES, title="Atlas of <things>")
    return path.read_text()


def content(page, name):
    return json.loads(re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page)[1])


def test_the_page_holds_what_the_model_says(page, model, data):
    found, (images, labels) = content(page, "data"), (torch.cat(parts) for parts in zip(*data, strict=True))
    assert found["classes"] == NAMES
    assert found["labels"] == labels.tolist()
    assert torch.equal(torch.tensor(found["weights"], dtype=torch.float64), model.head.weight.double())
    packed = np.frombuffer(base64.b64decode(found["bits"]), np.uint8).reshape(N, -1)
    bits = np.unpackbits(packed, axis=1, bitorder="little")[:, :N_CONCEPTS]
    np.testing.assert_array_equal(bits, model.concepts(images).detach().numpy())
    potentials = model.potentials(images).detach()
    for number, profile in enumerate(found["concepts"]):
        assert profile["rate"] == bits[:, number].mean()
        gallery, column = profile["gallery"], potentials[:, number]
        assert column[gallery["strongest"]].tolist() == column.sort(descending=True).values[:24].tolist()
        assert column[gallery["weakest"]].tolist() == column.sort().values[:24].tolist()
        assert column[gallery["at the threshold"]].abs().tolist() == column.abs().sort().values[:24].tolist()
        assert len(set(gallery["random"])) == 24


def test_sheets_hold_every_picture(page, data):
    images = torch.cat([images for images, _ in data]).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    sheets = [np.asarray(Image.open(io.BytesIO(base64.b64decode(sheet)))) for sheet in content(page, "sheets")]
    assert [sheet.shape for sheet in sheets] == [(32 * 6, 32 * 5, 3), (3 * 6, 32 * 5, 3)]
    for number in (0, 33, 1023, 1024, N - 1):
        row, column = number % 1024 // 32 * 6, number % 32 * 5
        np.testing.assert_array_equal(sheets[number // 1024][row : row + 6, column : column + 5], images[number])


def test_the_page_needs_no_network(page):
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*"|url\(http|@import', page)
    assert "<title>Atlas of &lt;things&gt;</title>" in page


def test_in_a_browser(page, model, data, tmp_path):
    """Mouse and keys work, and the numbers equal Python's."""
    script = """
      const until = () => new Promise(done => setTimeout(done, 50)), $ = name => document.querySelector(name);
      const key = name => document.body.dispatchEvent(new KeyboardEvent("keydown", {key: name, bubbles: true}));
      const found = {overview: $("#count").textContent, escaped: $("#class").options[1].textContent};
      $("#class").value = "1"; $("#class").onchange({target: $("#class")});
      found.dogs = $("#count").textContent;
      $(".chips button[data-concept='4']").click(); found.with4 = $("#count").textContent;
      $(".chips button[data-concept='4']").click(); found.without4 = $("#count").textContent;
      $("#class").focus(); $(".picture").click(); await until();
      found.hash = location.hash;
      location.hash = "image=7"; await until();
      const scores = () => [...document.querySelectorAll("[data-score]")].map(cell => Number(cell.dataset.score));
      found.scores = scores(); found.shown = $("[data-score]").textContent;
      found.bits = Array.from({length: 11}, (_, k) => $(`#bit${k}`).checked);
      $("#bit2").focus(); $("#bit2").click(); found.switched = scores(); found.focus = document.activeElement.id;
      $("#reset").click(); found.again = scores();
      key("ArrowRight"); await until(); found.right = location.hash;
      key("ArrowLeft"); await until(); key("ArrowLeft"); await until(); found.left = location.hash;
      location.hash = "concept=0"; await until(); key("ArrowLeft"); await until(); found.last = location.hash;
      found.pictures = document.querySelectorAll(".picture").length;
      key("Escape"); await until(); found.home = $("#where").textContent;
      location.hash = "image=5000"; await until(); found.beyond = Boolean($("#count"));
      found.fits = document.documentElement.scrollWidth <= innerWidth;
      return found;"""
    found = probe(page, script, tmp_path, width=390)
    images, labels = (torch.cat(parts) for parts in zip(*data, strict=True))
    bits = model.concepts(images).bool()
    dogs = labels == 1
    assert found["overview"].startswith(f"{N} of {N} images, ")
    assert found["escaped"] == "<cat>"
    assert found["dogs"].startswith(f"{dogs.sum()} of {N} images")
    assert found["with4"].startswith(f"{(dogs & bits[:, 4]).sum()} of {N}")
    assert found["without4"].startswith(f"{(dogs & ~bits[:, 4]).sum()} of {N}")
    first = (dogs & ~bits[:, 4]).nonzero()[0].item()
    assert found["hash"] == f"#image={first}"
    expected = [concepts.explain(model, images[7], number).score for number in range(N_CLASSES)]
    assert found["scores"] == pytest.approx(expected, abs=1e-9) == found["again"]
    assert float(found["shown"].replace("−", "-")) == pytest.approx(expected[0], abs=6e-5)
    assert found["bits"] == bits[7].tolist()
    with model.intervene({2: 1 - int(bits[7, 2])}):
        switched = [concepts.explain(model, images[7], number).score for number in range(N_CLASSES)]
    assert found["switched"] == pytest.approx(switched, abs=1e-9)
    assert (found["focus"], found["right"], found["left"]) == ("bit2", "#image=8", "#image=6")
    assert (found["last"], found["pictures"]) == ("#concept=10", 4 * 24)
    assert found["home"] == f"{N} images, {N_CONCEPTS} concepts"
    assert found["beyond"] and found["fits"]


def test_ten_thousand_images_stay_fast(tmp_path):
    """Few pictures are laid out at first, and a sheet is decoded only when one of its pictures is visible."""
    model = new_model()
    images = torch.rand(64, 3, 6, 5).repeat(157, 1, 1, 1)[:10_000]
    concepts.write_atlas(model.eval(), [(images, torch.zeros(10_000, dtype=torch.int64))], tmp_path / "atlas.html")
    script = """
      const pictures = document.querySelectorAll(".picture").length;
      return {count: document.getElementById("count").textContent, pictures, sheets: sheetUrls.size};"""
    found = probe((tmp_path / "atlas.html").read_text(), script, tmp_path)
    assert found["count"].startswith("10000 of 10000")
    assert found["pictures"] <= 200
    assert found["sheets"] <= 1


def test_large_images_are_shrunk_and_grey_ones_stay_grey(tmp_path):
    model = models.ICBM(nn.AdaptiveAvgPool2d(2), N_CONCEPTS, N_CLASSES, in_features=1).eval()
    concepts.write_atlas(model, [(torch.rand(3, 1, 300, 150), torch.zeros(3).long())], tmp_path / "atlas.html")
    page = (tmp_path / "atlas.html").read_text()
    assert content(page, "data")["picture"] == {"height": 96, "width": 48, "columns": 32, "per_sheet": 1024}
    assert content(page, "data")["classes"] == ["0", "1", "2"]
    [sheet] = content(page, "sheets")
    assert Image.open(io.BytesIO(base64.b64decode(sheet))).mode == "L"


@pytest.mark.parametrize(
    ("batches", "classes", "message"),
    [
        ([], None, "^loader: expected at least one image"),
        ([(torch.rand(2, 2, 6, 5), torch.zeros(2).long())], None, r"^loader: expected images \(B, 1 or 3, H, W\), got"),
        ([], ["cat"], "^classes: expected 3 names, got 1"),
    ],
)
def test_bad_input_is_named(tmp_path, batches, classes, message):
    with pytest.raises(ValueError, match=message):
        concepts.write_atlas(new_model(), batches, tmp_path / "atlas.html", classes=classes)
    assert not [*tmp_path.iterdir()]
