"""The page of puna serve in Chromium: all that a person can do there, with the model that comes with Puna."""
import base64
import gzip
import json
import re
import socket
import time
import urllib.request

import pytest
from page_support import MODEL, PICTURE, Page, browser, exactly
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from serve_support import ask, serving

MARKDOWN = """# Title

Some *words*, a [link](https://example.org/) and $e^{i\\pi} = -1$.

| a | b |
|---|---|
| 1 | 2 |

```python
def f(x):
    return "<b>" + x
```

$$\\sum_{k=1}^n k = \\frac{n(n+1)}{2}$$
"""
HOSTILE = ('<script>window.hacked = 1</script> <img src=x onerror="window.hacked = 2"> '
           '[press](javascript:window.hacked=3) ![far](https://example.org/spy.png) <svg onload="window.hacked=4">')
LONG = {"ignore_eos": True, "max_tokens": 3500, "temperature": 1}


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def driver(downloads):
    driver = browser(downloads)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def url():
    with serving(MODEL) as (url, _):
        yield url


@pytest.fixture
def page(driver, url):
    driver.set_window_size(1280, 900)
    page = Page(driver, url)
    page.open_afresh()
    page.errors()
    yield page
    assert page.errors() == []


def test_an_answer_comes_piece_by_piece_as_markdown(page, tmp_path):
    page.js("""window.lengths = [];
               new MutationObserver(() => {
                 const text = document.querySelector("article.assistant .markdown")?.textContent.length ?? 0;
                 if (text !== window.lengths.at(-1)) window.lengths.push(text);
               }).observe(document.getElementById("messages"), {childList: true, subtree: true, characterData: true});""")
    article = page.ask("hello", exactly(MARKDOWN))
    lengths = page.js("return window.lengths")
    assert len(lengths) >= 3 and lengths[0] < lengths[-1] / 2, lengths
    for inside in ("h1", "em", "td", ".code .hljs-keyword", ".katex", ".tex .katex-display", 'a[href="https://example.org/"][rel*="noopener"]'):
        assert article.find_elements(By.CSS_SELECTOR, ".markdown " + inside), inside
    assert page.text("article.assistant pre") == 'def f(x):\n    return "<b>" + x'
    page.driver.execute_cdp_cmd("Browser.grantPermissions", {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]})
    article.find_element(By.CSS_SELECTOR, ".copy").click()
    page.until(lambda: page.text(".copy") != "Copy", 10)
    copied = page.driver.execute_async_script("navigator.clipboard.readText().then(arguments[0], (e) => arguments[0](String(e)))")
    assert copied == 'def f(x):\n    return "<b>" + x'
    page.screenshot("markdown.png", tmp_path)


def test_stop_ends_the_work_and_keeps_the_text(page, url):
    page.extra(LONG)
    page.send("tell me all")
    page.until(lambda: len(page.markdown() or "") > 10)
    page.one("#stop").click()
    article = page.answered()
    assert article.find_element(By.CSS_SELECTOR, ".note").text == "Stopped."
    text = page.markdown()
    assert len(text) > 10

    def idle():
        json = ask(url + "/requests")[2]
        return json["data"] == [] and json["engine"]["running"] == 0
    page.until(idle, 30)
    assert ask(url + "/requests")[2]["engine"]["generated_tokens"] < 3500
    page.driver.refresh()
    page.until(lambda: page.all("article.assistant"))
    assert page.markdown() == text


def add_by_event(page, kind):
    """As a paste or a drop brings a file."""
    page.js("""const bytes = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0));
               const data = new DataTransfer();
               data.items.add(new File([bytes], "example.png", {type: "image/png"}));
               const event = arguments[1] === "paste"
                 ? new ClipboardEvent("paste", {clipboardData: data, bubbles: true, cancelable: true})
                 : new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true});
               document.getElementById("input").dispatchEvent(event);""",
            base64.b64encode(PICTURE.read_bytes()).decode(), kind)


def test_pictures_and_the_experts_of_their_tokens(page, url, tmp_path):
    page.one("#files").send_keys(str(PICTURE))
    page.until(lambda: len(page.all("#pictures img")) == 1)
    add_by_event(page, "paste")
    page.until(lambda: len(page.all("#pictures img")) == 2)
    add_by_event(page, "drop")
    page.until(lambda: len(page.all("#pictures img")) == 3)
    for _ in range(2):
        page.all("#pictures button")[-1].click()
    page.set("system", "")
    article = page.ask("What is in the picture?", {"temperature": 0})
    assert "blue circle" in page.markdown()
    assert article.find_elements(By.XPATH, "preceding-sibling::article//img")

    page.tool(article, "Which experts")
    page.until(lambda: page.all(".heatmap canvas") and page.all(".tiles canvas"))
    request = page.js("return new Promise((done) => { indexedDB.open('puna').onsuccess = (e) => e.target.result"
                      ".transaction('conversations').objectStore('conversations').getAll().onsuccess = (e) =>"
                      " done(Object.values(e.target.result[0].nodes).find((n) => n.request).request); })")
    status, _, data = ask(f"{url}/v1/requests/{request}/routing")
    assert status == 200
    text = "".join(data["tokens"][data["prompt_tokens"]:])
    assert page.markdown().strip() == text.strip()
    # The text, token by token, and the map under the pointer.
    assert page.js("return [...document.querySelectorAll('.tokens span')].map((s) => s.textContent)") == data["tokens"][data["prompt_tokens"]:]
    canvas = page.all(".heatmap canvas")[0]
    page.js("arguments[0].scrollIntoView({block: 'center'})", canvas)
    column, row, cell, side, head = 2, 1, 20, 34, 64
    at = data["prompt_tokens"] + column
    ActionChains(page.driver).move_to_element_with_offset(
        canvas, side + column * cell + 8 - canvas.size["width"] // 2, head + row * cell + 8 - canvas.size["height"] // 2).perform()
    said = f"layer {data['layers'][row]}: expert {data['experts'][at][row][0]}, score {data['scores'][at][row][0]:.3f}"
    page.until(lambda: said in page.text(".said"), 10)
    assert f"position {at}" in page.text(".said")
    colours = page.js("""const line = arguments[0].getContext("2d").getImageData(36, 67, 200, 1).data, seen = new Set();
                         for (let i = 0; i < 200; i += 20) seen.add(line.slice(4 * i, 4 * i + 4).join());
                         return seen.size""", canvas)
    assert colours > 1
    page.one(".heatmap").send_keys(Keys.ARROW_RIGHT)
    assert f"position {at + 1}" in page.text(".said")
    # The picture's tiles.
    image = data["images"][0]
    patches = [i for i, token in enumerate(data["tokens"]) if token == "<|patch|>"]
    assert image["position"] == patches[0] and image["end"] == patches[-1] + 1 and image["tokens"] == len(patches)
    assert sum(tile["tokens"] for tile in image["tiles"]) == len(patches)
    caption = page.text(".tiles figcaption")
    assert f"{len(image['tiles'])} tile" in caption and f"at {image['position']} to {image['end'] - 1}" in caption
    assert len(page.all(".tiles li")) == len(image["tiles"])
    page.js("document.querySelector('article.user').scrollIntoView()")
    page.screenshot("page.png", tmp_path)
    page.one("#theme").click()
    page.one("#theme").click()
    page.js("document.querySelector('.routing').scrollIntoView()")
    page.screenshot("dark.png", tmp_path)


def test_a_reload_keeps_conversation_and_settings(page):
    page.set("system", "You are brief.")
    page.ask("hello", exactly("One *answer*."))
    page.one("#theme").click()
    page.driver.refresh()
    page.until(lambda: page.all("article.assistant"))
    assert page.markdown() == "One answer."
    assert page.text("article.user .text") == "hello"
    assert page.js("return document.getElementById('system').value") == "You are brief."
    assert page.js("return document.documentElement.dataset.theme") == "light"
    assert "hello" in page.text("#conversations")


def test_edits_and_new_answers_are_branches(page):
    page.ask("first", exactly("one"))
    page.extra(exactly("two"))
    page.tool(page.all("article.assistant")[-1], "Answer again")
    page.until(lambda: page.markdown() == "two")
    page.answered()
    assert page.text("article.assistant .branches span") == "2/2"
    page.tool(page.all("article.user")[0], "Edit")
    field = page.one("article.user textarea")
    field.clear()
    field.send_keys("second", Keys.ENTER)
    page.until(lambda: page.text("article.user .text") == "second")
    page.answered()
    assert page.text("article.user .branches span") == "2/2" and page.text("article.assistant .branches") is None
    page.all('article.user [aria-label="Previous branch"]')[0].click()
    assert page.text("article.user .text") == "first" and page.markdown() == "two"
    page.all('article.assistant [aria-label="Previous branch"]')[0].click()
    assert page.markdown() == "one"


def test_what_an_answer_holds_is_never_executed(page):
    article = page.ask("hello", exactly(HOSTILE))
    assert page.js("return window.hacked ?? null") is None
    assert "<script>window.hacked = 1</script>" in page.markdown()
    assert article.find_elements(By.CSS_SELECTOR, ".markdown script, .markdown img, .markdown svg") == []
    for link in article.find_elements(By.CSS_SELECTOR, ".markdown a"):
        assert not (link.get_attribute("href") or "").startswith("javascript:")
    with pytest.raises(Exception, match="TrustedHTML"):
        page.js("document.createElement('p').innerHTML = '<b>x</b>'")
    assert all("TrustedHTML" in entry["message"] for entry in page.errors())


def test_the_server_dies_and_comes_back(driver, url):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    page = Page(driver, f"http://127.0.0.1:{port}")
    said = markdown = None
    try:
        with serving(MODEL, port=port) as (_, process):
            page.open_afresh()
            page.extra(LONG)
            page.send("tell me all")
            page.until(lambda: len(page.markdown() or "") > 10)
            process.kill()
            page.until(lambda: page.shown("article.assistant .error") and page.shown("#down"))
            said, markdown = page.text("article.assistant .error"), page.markdown()
            process.wait()
    except AssertionError:
        if process.returncode != -9:  # killed, as it was meant
            raise
    assert "not complete" in said or "before it was complete" in said
    assert len(markdown) > 10
    with serving(MODEL, port=port):
        page.until(lambda: not page.shown("#down"))
        page.extra(exactly("back again"))
        page.one(".retry").click()
        page.until(lambda: page.markdown() == "back again")
        page.answered()
        driver.get("about:blank")
    assert all("ERR_CONNECTION_REFUSED" in entry["message"] or "ERR_INCOMPLETE_CHUNKED" in entry["message"] or
               "ERR_CONNECTION_RESET" in entry["message"] or "ERR_EMPTY_RESPONSE" in entry["message"] for entry in page.errors())


def test_conversations_are_exported_and_imported(page, downloads, tmp_path):
    page.ask("hello", exactly("An answer."))
    page.one("#export").click()
    file = downloads / "puna-conversations.json"
    page.until(lambda: file.exists() and json.loads(file.read_text()), 20)
    page.open_afresh()
    assert page.all("article") == []
    page.one("#import-file").send_keys(str(file))
    page.until(lambda: page.markdown() == "An answer.")
    damaged = json.loads(file.read_text())
    damaged["conversations"][0]["roots"] = ["nowhere"]
    (tmp_path / "damaged.json").write_text(json.dumps(damaged))
    page.one("#import-file").send_keys(str(tmp_path / "damaged.json"))
    page.until(lambda: "1 of 1 conversations are damaged" in (page.text(".notice") or ""))


def test_errors_of_the_server_are_shown(page):
    page.ask("hello", {"temperature": -5})
    assert "'temperature' is -5" in page.text("article.assistant .error")
    assert page.errors() != []  # the browser notes every status 400
    page.extra(exactly("better"))
    page.one(".retry").click()
    page.until(lambda: page.markdown() == "better")
    page.answered()


def test_a_phone_and_the_keyboard(page, tmp_path):
    page.driver.set_window_size(500, 800)  # Chromium's least
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True})
    try:
        page.driver.refresh()
        page.until(lambda: page.all("body[data-ready]"))
        assert page.shown("#list") == [] and page.shown("#panel") == []
        page.ask("hello", exactly(MARKDOWN))
        assert page.js("return document.documentElement.scrollWidth <= window.innerWidth")
        page.screenshot("phone.png", tmp_path)
        page.one("#show-list").click()
        assert page.shown("#list")
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    body = page.one("body")
    ActionChains(page.driver).key_down(Keys.ALT).send_keys("n").key_up(Keys.ALT).perform()
    page.until(lambda: page.all("article") == [])
    page.js("document.activeElement.blur()")
    body.send_keys("/")
    assert page.js("return document.activeElement.id") == "input"
    assert page.js("return document.getElementById('input').value") == ""
    page.extra(LONG)
    page.send("tell me all")
    page.until(lambda: len(page.markdown() or "") > 10)
    page.one("#input").send_keys(Keys.ESCAPE)
    page.answered()
    assert "Stopped." in page.text("article.assistant .note")


def test_every_control_has_a_name_and_figures_are_shown(page):
    page.one("#show-panel").click()
    page.ask("hello", exactly("An answer."))
    nameless = page.js("""return [...document.querySelectorAll("button, input, textarea, select")].filter((one) =>
        !(one.getAttribute("aria-label") || one.labels?.[0]?.textContent.trim() || one.textContent.trim())).map((one) => one.outerHTML)""")
    assert nameless == []
    page.until(lambda: re.search(r"Cache, global layers[\d,]+ used \+ [\d,]+ kept of [\d,]+ blocks", page.text("#engine") or ""))
    assert "all in memory" in page.text("#engine") and "tokens/s" in page.text("#speed")
    assert page.text("#model") == "puna-demo"


def fetch(url, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60) as answer:
        return answer.status, answer.headers, answer.read()


def test_files_of_the_page_are_cached_compressed_and_closed_to_others(url):
    _, head, plain = fetch(url + "/")
    assert head.get_content_type() == "text/html" and head["Content-Encoding"] is None and b"<!doctype html>" in plain
    for part in ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"):
        assert part in head["Content-Security-Policy"]
    assert "unsafe" not in head["Content-Security-Policy"] and head["X-Content-Type-Options"] == "nosniff"
    _, zipped_head, zipped = fetch(url + "/", **{"Accept-Encoding": "gzip"})
    assert zipped_head["Content-Encoding"] == "gzip" and gzip.decompress(zipped) == plain
    assert zipped_head["ETag"] != head["ETag"]
    with pytest.raises(urllib.error.HTTPError) as unchanged:
        fetch(url + "/", **{"If-None-Match": head["ETag"]})
    assert unchanged.value.code == 304 and unchanged.value.read() == b""
    for name, kind in (("app.js", "text/javascript"), ("style.css", "text/css"), ("lib/katex.js", "text/javascript"),
                       ("lib/fonts/KaTeX_Main-Regular.woff2", "font/woff2")):
        assert fetch(f"{url}/page/{name}")[1].get_content_type() == kind
    assert ask(url + "/page/none.js")[0] == 404
    assert ask(url + "/", {}, method="POST")[0] == 404
    # Nothing is named that is not there, and nothing from elsewhere.
    for link in re.findall(r'(?:src|href)="([^"#]+)"', plain.decode()):
        assert fetch(f"{url}/{link}")[0] == 200, link


def test_two_pages_of_a_conversation_lose_nothing(page):
    page.ask("first page", exactly("one"))
    first = page.driver.current_window_handle
    page.driver.switch_to.new_window("tab")
    try:
        page.open()
        page.until(lambda: "one" in page.text("#messages"))
        page.ask("second page", exactly("two"))
        second = page.driver.current_window_handle
        page.driver.switch_to.window(first)
        page.until(lambda: "two" in page.text("#messages"), 10)
        page.extra({**LONG, "max_tokens": 1000})
        page.send("long")
        page.until(lambda: page.all("#messages article[aria-busy]"))
        page.driver.switch_to.window(second)
        page.until(lambda: page.all("#messages article[aria-busy]"), 10)
        page.js("document.querySelector('#list .name, #conversations .name').click()")
        page.driver.switch_to.window(first)
        page.answered()
        whole = page.text("#messages article.assistant:last-of-type .markdown")
        page.driver.switch_to.window(second)
        page.until(lambda: page.text("#messages article.assistant:last-of-type .markdown") == whole, 10)
        assert "Cut when" not in page.text("#messages")
        page.js("window.confirm = () => true; document.querySelector(\"#conversations [aria-label^='Delete']\").click()")
        page.driver.switch_to.window(first)
        page.until(lambda: not page.all("#messages article"), 10)
        page.driver.switch_to.window(second)
    finally:
        if len(page.driver.window_handles) > 1:
            page.driver.close()
        page.driver.switch_to.window(first)
    page.driver.refresh()
    page.until(lambda: page.all("body[data-ready]"))
    assert not page.all("#conversations .name")
