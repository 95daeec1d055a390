"""The page without a server: what is written into it, and what a browser makes of it."""

import base64
import io
import json
import re
from itertools import pairwise

import numpy as np
import pytest
from conftest import ROOT
from demo_fixtures import CONFIG, browser, load_engine
from PIL import Image
from typer.testing import CliRunner

from varient.cli import app
from varient.config import load_config
from varient.demo.costs import network_kv
from varient.demo.engine import Engine
from varient.demo.page import IMAGES, write_page
from varient.report.style import BLUE, ORANGE, SKY, VERMILLION
from varient.systems.ids import VarId
from varient.systems.pipeline import random_pipeline

DEPTHS = [30, 4]


@pytest.fixture(scope="module")
def engine():
    return load_engine()


@pytest.fixture(scope="module")
def page(engine, tmp_path_factory):
    path = tmp_path_factory.mktemp("demo") / "index.html"
    write_page(engine, path, DEPTHS, ["l20", "h100"])
    return path


@pytest.fixture(scope="module")
def data(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text())[1])


def _entry(data, depth, bridge):
    return data["entries"][data["plans"][data["depths"].index(depth)][bridge]]


def test_the_page_asks_for_no_other_file(page):
    text = page.read_text()
    assert re.search(r'http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:;', text)
    assert re.findall(r'(?:src|href)=|url\(|@import|\bfetch\(|XMLHttpRequest', text) == []
    assert 'name="viewport" content="width=device-width' in text


def test_the_colours_are_those_of_the_figures_in_both_schemes(page):
    light, dark = page.read_text().split("@media (prefers-color-scheme: dark)")[:2]
    assert f"--a: {BLUE}; --b: {VERMILLION}" in light and f"--a: {SKY}; --b: {ORANGE}" in dark


def test_every_plan_is_there_once(data):
    assert data["depths"] == [4, 30] and [len(row) for row in data["plans"]] == [11, 11]
    assert set(data["plans"][1]) == {data["full"]} == {data["plans"][0][10]}
    assert len(data["entries"]) == 11 == len(set(data["plans"][0]))
    assert _entry(data, 4, 6)["layers"] == [30] * 6 + [4] * 4


@pytest.mark.parametrize(("depth", "bridge"), [(4, 6), (4, 0), (30, 3)])
def test_the_pictures_are_those_of_the_engine(engine, data, depth, bridge):
    system = VarId("free", depth, bridge=bridge)
    labels = [label for _ in range(IMAGES) for label in range(10)]
    drawn = engine.draw(system, labels, range(len(labels)), CONFIG.seed)
    growth = engine.grow(drawn.tokens_BL[:10])
    content = base64.b64decode(_entry(data, depth, bridge)["sprite"].removeprefix("data:image/png;base64,"))
    sprite = np.asarray(Image.open(io.BytesIO(content)))
    assert sprite.shape == (10 * 8, (IMAGES + 10) * 8, 3)
    for label in range(10):
        row = sprite[label * 8:(label + 1) * 8]
        columns = [row[:, at * 8:(at + 1) * 8].transpose(2, 0, 1) for at in range(IMAGES + 10)]
        assert np.array_equal(columns[:IMAGES], drawn.images_B3SS[label::10])
        assert np.array_equal(columns[IMAGES:], growth[:, label])


def test_the_caches_are_those_of_one_image(engine, data):
    plan = engine.plan(VarId("free", 4, bridge=6))
    for policy, counted in _entry(data, 4, 6)["kv_bytes"].items():
        assert tuple(counted) == network_kv(CONFIG, plan, 1, policy).peak


def test_networks_without_a_counterpart_at_the_papers_size_get_no_page(engine, tmp_path):
    smoke = load_config(ROOT / "workflow/config/smoke.yaml")
    small = Engine(smoke, random_pipeline(smoke, smoke.plan()), "supernet-d4")
    with pytest.raises(ValueError, match="smoke: .* 30 layers"):
        write_page(small, tmp_path / "index.html", [4])
    with pytest.raises(ValueError, match="supernet-d4: .* 8, 30"):
        write_page(engine, tmp_path / "index.html", [8, 30])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("arguments", "told"), [
    (["--static", "there", "--config", "digits"], "leave out --config"),
    (["--static", "there", "--port", "7000"], "leave out --config"),
    (["--port", "0"], "port 0 is below 1"),
    (["--port", "65536"], "port 65536 is above 65535"),
    (["--config", "none.yaml"], "none.yaml"),
    (["--run-dir", "there"], "there/tokenizer.safetensors"),
    (["--checkpoint", "none.safetensors"], "none.safetensors"),
])
def test_bad_arguments_end_in_one_line(arguments, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("varient.cli.demo.find_spec", lambda name: name)
    result = CliRunner().invoke(app, ["demo", *arguments])
    assert result.exit_code == 1 and len(result.output.splitlines()) == 1 and told in result.output
    assert list(tmp_path.iterdir()) == []


def test_without_its_extra_the_live_page_says_what_to_install(monkeypatch):
    monkeypatch.setattr("varient.cli.demo.find_spec", lambda name: None)
    result = CliRunner().invoke(app, ["demo"])
    assert result.exit_code == 1 and len(result.output.splitlines()) == 1 and "'varient[demo]'" in result.output


def test_a_file_in_the_place_of_the_folder_is_named_before_work_begins(tmp_path, monkeypatch):
    monkeypatch.setattr(Engine, "load", lambda *_: pytest.fail("began to work"))
    (tmp_path / "taken").write_text("precious")
    result = CliRunner().invoke(app, ["demo", "--static", str(tmp_path / "taken")])
    assert result.exit_code == 1 and len(result.output.splitlines()) == 1
    assert str(tmp_path / "taken") in result.output and (tmp_path / "taken").read_text() == "precious"


def test_a_page_of_before_may_be_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr(Engine, "load", lambda *_: None)
    monkeypatch.setattr("varient.demo.page.write_page", lambda _engine, path, depths: path.write_text(str(depths)))
    for _ in range(2):
        (tmp_path / "index.html").write_text("of before")
        result = CliRunner().invoke(app, ["demo", "--static", str(tmp_path)])
        assert result.exit_code == 0, result.output
        assert (tmp_path / "index.html").read_text() == "[16, 8, 4, 2, 30]"


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=browser(), args=["--no-sandbox"])
        yield opened
        opened.close()


def _shown(tab):
    """Pictures, growth, curve and numbers of the first plan."""
    return tab.evaluate("""() => [
        document.getElementById("a-grid").toDataURL(), document.getElementById("a-grown").toDataURL(),
        document.querySelector("path.a").getAttribute("d"), document.getElementById("numbers").innerText]""")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 360])
def test_keys_move_d_and_n_and_everything_follows(page, chromium, scheme, width):
    tab = chromium.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    errors = []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    tab.goto(page.as_uri())
    tab.wait_for_selector("#numbers tr")
    assert [tab.inner_text(f"#a-{name}-out") for name in ("depth", "bridge")] == ["4", "6"]
    seen = [_shown(tab)]
    tab.focus("#a-bridge")
    for _ in range(6):
        tab.keyboard.press("ArrowLeft")
    assert tab.inner_text("#a-bridge-out") == "0"
    seen.append(_shown(tab))
    tab.focus("#a-depth")
    tab.keyboard.press("ArrowRight")
    assert tab.inner_text("#a-depth-out") == "30"
    seen.append(_shown(tab))
    for before, after in pairwise(seen):
        assert [one != other for one, other in zip(before, after, strict=True)] == [True] * 4
    assert "0 of 40 pictures differ" in tab.inner_text("#differ")  # both plans are the full network now
    first = tab.inner_text("#latency")
    tab.focus("#batch")
    tab.keyboard.press("ArrowRight")
    assert tab.inner_text("#latency") != first and tab.inner_text("#batch-out") == "256"
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert errors == []
    tab.close()


@pytest.mark.slow
def test_the_page_says_what_the_cost_model_says(page, chromium, data):
    tab = chromium.new_page()
    tab.goto(page.as_uri())
    tab.wait_for_selector("#numbers tr")
    tab.select_option("#policy", "reference")
    cells = {name: tab.locator(f"#{name} td").all_inner_texts() for name in ("kv", "latency", "speedup")}
    assert cells["kv"][1] == "28,688" and cells["latency"][1] == "3.62" and cells["speedup"][1] == "1"
    cost = _entry(data, 4, 6)["paper"]["reference"]["fp16-autocast"]
    assert float(cells["latency"][0]) == pytest.approx(cost["latency_s"]["l20"][data["batches"].index(64)], rel=5e-3)
    tab.select_option("#gpu", "h100")
    assert tab.locator("#latency td").all_inner_texts() != cells["latency"]
    tab.close()
