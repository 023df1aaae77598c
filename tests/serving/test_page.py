"""The page at /, in headless Chromium: a conversation, its controls, Markdown, small screens, the dark.

Screenshots are kept in the folder that TFMODELS_SCREENSHOTS names, else in pytest's temporary one.
"""

from __future__ import annotations

import httpx
import pytest
from running_server import wait_until
from web_page import Page

PROMPT = "Once upon a time"
HOSTILE = """# A title <img src=x onerror="window.hacked = 1">

Some *emphasis*, **strength**, `code <b>` and ~~nothing~~, snake_case_names, 2 * 3 * 4.
<script>window.hacked = 1</script> [a](javascript:window.hacked=1) [b](data:text/html,x) ![c](https://x.example/y.png)
[good](https://good.example/a_b) and https://plain.example/path.

- one
  1. inner
  2. again
- two

> a quote

| left | right |
|------|-------|
| a `|` | <svg onload="window.hacked = 1"> |

```html
<iframe src="javascript:window.hacked = 1"></iframe>
```
"""


@pytest.fixture
def page(browser, stories):
    page = Page(browser, stories.url)
    page.problems()
    yield page
    assert page.problems() == []


SETTINGS = {"temperature": 0, "max_tokens": 40}


def test_a_conversation(page, shots, stories):
    page.open(settings=SETTINGS)
    assert page.run("return document.title") == "stories · tfmodels"
    page.browser.save_screenshot(str(shots / "empty.png"))
    page.say(PROMPT)
    page.answered()
    body = {"messages": [{"role": "user", "content": PROMPT}], "temperature": 0, "max_tokens": 40}
    answer = httpx.post(f"{stories.url}/v1/chat/completions", json=body, timeout=60).json()
    expected = answer["choices"][0]["message"]["content"].strip()
    assert page.texts() == [PROMPT, expected]
    figures = page.find(".figures").text
    assert figures.startswith("40 tokens · ") and "tokens/s" in figures and "first after" in figures
    page.browser.save_screenshot(str(shots / "conversation.png"))
    # It is there again after a reload, and gone after a new beginning.
    page.browser.refresh()
    assert page.texts() == [PROMPT, expected]
    page.find("#new").click()
    page.browser.refresh()
    assert page.texts() == []


def test_edit_and_retry(page):
    kept = [{"role": "user", "content": "Lily"}, {"role": "assistant", "content": "old"}]
    page.open(settings=SETTINGS, messages=kept)
    page.press(1, "Retry")
    page.answered()
    retried = page.texts()
    assert retried[0] == "Lily" and retried[1] != "old"
    page.press(0, "Edit")
    area = page.find(".edit textarea")
    assert area.get_attribute("value") == "Lily"
    area.clear()
    area.send_keys(PROMPT, "\ue007")
    page.answered()
    page.wait("document.querySelectorAll('.message').length === 2")
    edited = page.texts()
    assert edited[0] == PROMPT and edited[1] != retried[1]


def test_stop_keeps_what_is_there(page, stories):
    page.open(settings={"temperature": 0})
    page.say(PROMPT)
    page.wait("document.querySelectorAll('.message .body')[1]?.innerText.trim().length > 10")
    before = page.texts()[1]
    page.browser.switch_to.active_element.send_keys("\ue00c")  # Escape
    page.answered()
    assert "stopped" in page.find(".figures").text and page.texts()[1].startswith(before)
    wait_until(lambda: stories.worker.in_flight == 0 and stories.worker.busy == 0, 20)


def test_settings_go_along(page):
    page.open(settings={**SETTINGS, "system": PROMPT})
    page.find("#open").click()
    assert page.find("#temperature").get_attribute("value") == "0"
    page.find("#max_tokens").clear()
    page.find("#max_tokens").send_keys("3")
    page.find("dialog button").click()
    page.say(", there")
    page.answered()
    assert page.find(".figures").text.startswith("3 tokens")
    # A wrong value is not sent.
    page.find("#open").click()
    page.find("#temperature").clear()
    page.find("#temperature").send_keys("7")
    page.find("dialog button").click()
    assert page.run("return JSON.parse(localStorage.getItem('tfmodels.settings')).temperature") is None


def test_markdown_makes_no_html_of_its_text(page, shots):
    page.open(messages=[{"role": "user", "content": "<b>Hi</b>"}, {"role": "assistant", "content": HOSTILE}])
    page.browser.save_screenshot(str(shots / "markdown.png"))
    assert page.run("return window.hacked") is None
    everything = "[...document.querySelectorAll('.body *')]"
    names = set(page.run(f"return {everything}.map((one) => one.localName)"))
    marks = {"h1", "em", "strong", "s", "ol", "ul", "blockquote", "table", "pre"}
    others = {"a", "br", "button", "code", "div", "li", "p", "span", "tbody", "td", "th", "thead", "tr"}
    assert marks <= names <= marks | others
    links = page.run("return [...document.querySelectorAll('.body a')].map((one) => [one.href, one.rel])")
    assert [link[0] for link in links] == [
        "https://x.example/y.png",
        "https://good.example/a_b",
        "https://plain.example/path",
    ]
    assert all(link[1] == "noopener noreferrer" for link in links)
    attributes = page.run(f"return {everything}.flatMap((one) => one.getAttributeNames())")
    assert set(attributes) <= {"class", "href", "rel", "target", "type"}
    text = page.texts()[1]
    assert '<img src=x onerror="window.hacked = 1">' in text and "<script>window.hacked = 1</script>" in text
    assert "snake_case_names, 2 * 3 * 4." in text and page.texts()[0] == "<b>Hi</b>"
    assert page.run("return [...document.querySelectorAll('.body li > ol li')].map((one) => one.innerText)") == [
        "inner",
        "again",
    ]


def test_texts_that_are_made_to_break_the_page(page):
    """Deep and long ones: drawn within a moment, and whole."""
    table = "|" * 500 + "\n|-|\n" + "|" * 999
    hard = ["- * + " * 3000, ">" * 5000 + " a", "*" * 20000, "[" * 20000, "`" * 9999 + "a", table]
    page.open(messages=[{"role": "assistant", "content": text} for text in hard])
    assert len(page.texts()) == len(hard)


def test_a_phone_and_the_dark(page, shots):
    kept = [{"role": "user", "content": "Show me something."}, {"role": "assistant", "content": HOSTILE}]
    page.open(width=500, height=850, settings=SETTINGS, messages=kept)
    page.find("#theme").click()
    assert page.run("return getComputedStyle(document.body).backgroundColor") == "rgb(23, 22, 20)"
    assert page.run("return document.documentElement.scrollWidth <= innerWidth")
    page.browser.save_screenshot(str(shots / "phone-dark.png"))
    page.find("#open").click()
    page.browser.save_screenshot(str(shots / "phone-settings.png"))
    assert page.run("return document.querySelector('dialog').getBoundingClientRect().right <= innerWidth")
    page.browser.refresh()
    assert page.run("return document.documentElement.dataset.theme") == "dark"


def test_the_policy_lets_nothing_in(stories):
    response = httpx.get(stories.url)
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "connect-src 'self'" in policy
    text = response.text
    assert 'src="http' not in text and "@import" not in text and "innerHTML" not in text
