"""What every test shares: seeds, a browser, quiet TensorFlow."""

import os
import random
import signal
import sys

import hypothesis
import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
# A shell lets what it runs in the background ignore Ctrl-C; tests that send it need an answer.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# A deadline per example would measure the machine, and what else it does.
hypothesis.settings.register_profile("project", deadline=None)
hypothesis.settings.load_profile("project")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """Seeds what is random before each test and its fixtures: a result never depends on order."""
    random.seed(0)
    np.random.seed(0)
    if "tensorflow" in sys.modules:
        sys.modules["tensorflow"].keras.utils.set_random_seed(0)


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium; tests that ask for it carry `browsers.NEEDS_CHROMIUM`."""
    from playwright.sync_api import sync_playwright

    from tests.helpers import browsers

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=browsers.CHROMIUM, args=["--no-sandbox"]
        )
        yield chromium
        chromium.close()
