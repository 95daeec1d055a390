"""The live page, as a browser on this machine sees it."""

import pytest
from demo_fixtures import browser, load_engine

from varient.demo.live import Live

pytest.importorskip("gradio", reason="needs varient[demo]")

SLOWLY_MS = 120_000
"""How long a busy machine may take for a page."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address():
    from varient.demo.app import launch

    page = launch(Live(load_engine()), wait=False)
    assert page.share_url is None and page.local_url.startswith("http://127.0.0.1:")
    yield page.local_url
    page.close()


@pytest.fixture
def tab(address):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=browser(), args=["--no-sandbox"])
        page = opened.new_page()
        page.set_default_timeout(SLOWLY_MS)
        page.foreign = []
        page.on("request", lambda request: request.url.startswith((address, "data:", "blob:"))
                or page.foreign.append(request.url))
        page.goto(address)
        page.wait_for_selector("#numbers table")
        yield page
        opened.close()


SHOWN = """() => [...["a-grid", "a-grown", "curve"].map(name => document.querySelector(`#${name} img`).src),
                document.querySelector("#numbers").innerText]"""


def test_moving_d_and_n_moves_pictures_cache_and_numbers(tab):
    seen = tab.evaluate(SHOWN)
    for control, value in (("a-N", "0"), ("a-d", "30")):
        tab.fill(f"#{control} input", value)
        tab.keyboard.press("Tab")
        tab.wait_for_function(f"before => ({SHOWN})().every((shown, at) => shown !== before[at])", arg=seen)
        seen = tab.evaluate(SHOWN)
    tab.wait_for_function("document.querySelector('#differ').innerText.includes('0 of 8 images differ')")
    assert tab.foreign == []


def test_a_wrong_value_is_told_beside_its_control(tab):
    before = tab.inner_text("#numbers")
    tab.fill("#b-d input", "31")
    tab.keyboard.press("Tab")
    tab.wait_for_selector("#b-d-problem")
    assert "2 to 30" in tab.inner_text("#b-d-problem") and not tab.locator("#a-d-problem").is_visible()
    assert tab.inner_text("#numbers") == before
    tab.fill("#b-d input", "16")
    tab.keyboard.press("Tab")
    tab.wait_for_selector("#b-d-problem", state="hidden")
