"""The server's page in headless Chromium, as a person uses it."""

from __future__ import annotations

import contextlib
import shutil

import pytest
from running_server import wait_until


@contextlib.contextmanager
def chromium():
    """A browser; the test is skipped where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="pip install selenium")
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (browser and driver):
        pytest.skip("Chromium is not installed: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    # --no-sandbox: tests run as root in containers, where Chromium has no sandbox of its own.
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_argument("--force-prefers-reduced-motion")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    running = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))
    try:
        yield running
    finally:
        running.quit()


class Page:
    """The page, as a person sees it."""

    def __init__(self, browser, url):
        self.browser, self.url = browser, url

    def open(self, width=1100, height=800, **kept):
        """Load it anew with nothing kept but these entries of the browser's storage."""
        self.browser.set_window_size(width, height)
        self.browser.get(self.url)
        self.run("localStorage.clear(); sessionStorage.clear()")
        for name, value in kept.items():
            self.run("localStorage.setItem(arguments[0], JSON.stringify(arguments[1]))", f"tfmodels.{name}", value)
        self.browser.refresh()
        self.wait("document.querySelector('#dot').className === 'dot ready'")
        return self

    def run(self, script, *arguments):
        return self.browser.execute_script(script, *arguments)

    def wait(self, condition, seconds=60):
        wait_until(lambda: self.run(f"return {condition}"), seconds)

    def find(self, selector):
        return self.browser.find_element("css selector", selector)

    def say(self, text):
        """Type a message and send it by the keyboard."""
        self.find("#text").send_keys(text, "\ue007")

    def texts(self):
        return self.run("return [...document.querySelectorAll('.message .body')].map((one) => one.innerText.trim())")

    def answered(self):
        self.wait("document.querySelector('#stop').hidden && document.querySelectorAll('.figures').length > 0")

    def press(self, message, label):
        """Press a button below a message."""
        script = "return [...document.querySelectorAll('.message')[arguments[0]].querySelectorAll('.foot button')]"
        self.run(f"({script[7:]}.find((one) => one.textContent === arguments[1])).click()", message, label)

    def problems(self):
        """Complaints of the browser, without those about the status of an answer."""
        return [line for line in self.browser.get_log("browser") if "the server responded with" not in line["message"]]
