"""The shipped networks in memory, and the browser of this machine."""

import shutil

import pytest

from varient.config import load_config
from varient.demo.engine import Engine
from varient.shipped import ACCEPTED_SUPERNET, shipped

BASELINE = shipped("baseline")
CONFIG = load_config(BASELINE / "config.json")
FILES = BASELINE / "tokenizer.safetensors", BASELINE / f"{ACCEPTED_SUPERNET}.safetensors"


def load_engine() -> Engine:
    """A new engine of the shipped networks."""
    return Engine.load(CONFIG, *FILES)


def browser() -> str:
    """Path of Chromium; a test that needs it is skipped where there is none."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    return found
