"""The page of `puna serve` in Chromium: what a person does, as functions."""
import json
import os
from pathlib import Path

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

MODEL = Path(__file__).resolve().parents[2] / "models" / "puna-demo"
PICTURE = MODEL / "example.png"
SECONDS = 120  # for an answer on a busy machine


def browser(downloads):
    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--window-size=1280,900",
                 "--force-device-scale-factor=1", "--disable-background-networking", "--disable-component-update",
                 "--force-prefers-reduced-motion"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    driver.set_script_timeout(60)
    return driver


def exactly(text):
    """Fields of a request that hold the answer to this text."""
    return {"grammar": "root ::= " + json.dumps(text)}


class Page:
    def __init__(self, driver, url):
        self.driver = driver
        self.url = url

    def open(self):
        self.driver.get(self.url)
        self.until(lambda: self.all("body[data-ready]"))

    def open_afresh(self):
        """As a browser that has never been here."""
        self.driver.get(self.url + "/page/icon.svg")
        self.driver.execute_async_script("""
            const done = arguments[0];
            localStorage.clear();
            const gone = indexedDB.deleteDatabase("puna");
            gone.onsuccess = gone.onerror = gone.onblocked = () => done();""")
        self.errors()  # of a picture as a page, whose own picture is not there
        self.open()

    def until(self, found, seconds=SECONDS):
        wait = WebDriverWait(self.driver, seconds, poll_frequency=0.05, ignored_exceptions=[StaleElementReferenceException])
        return wait.until(lambda _: found())

    def all(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector):
        return self.until(lambda: self.all(selector), 20)[0]

    def js(self, script, *given):
        return self.driver.execute_script(script, *given)

    def text(self, selector):
        return self.js("return document.querySelector(arguments[0])?.textContent ?? null", selector)

    def shown(self, selector):
        return [one for one in self.all(selector) if one.is_displayed()]

    def set(self, name, value):
        """Fills a field of the settings, whether the panel is shown or not."""
        self.js("""const field = document.getElementById(arguments[0]);
                   if (field.type === "checkbox") field.checked = arguments[1]; else field.value = arguments[1];
                   field.dispatchEvent(new Event("input", {bubbles: true}));""", name, value)

    def extra(self, fields):
        self.set("extra", json.dumps(fields) if fields else "")

    def send(self, text):
        self.one("#input").send_keys(text, Keys.ENTER)

    def answered(self):
        """The last answer, once it is whole."""
        last = "#messages article.assistant:last-of-type"
        self.until(lambda: self.all(last) and not self.all("#messages article[aria-busy]") and self.shown("#send"))
        return self.all("#messages article.assistant")[-1]

    def ask(self, text, fields=None):
        self.extra(fields)
        self.send(text)
        return self.answered()

    def markdown(self):
        """The text of the last answer, without the line ends between and behind its blocks' tags."""
        text = self.text("#messages article.assistant:last-of-type .markdown")
        return text and text.strip()

    def tool(self, article, label):
        article.find_element(By.CSS_SELECTOR, f'.tools [aria-label^="{label}"]').click()

    def errors(self):
        return [entry for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]

    def screenshot(self, name, directory):
        """In $PUNA_SCREENSHOTS where that is set."""
        folder = Path(os.environ.get("PUNA_SCREENSHOTS") or directory)
        folder.mkdir(parents=True, exist_ok=True)
        self.driver.save_screenshot(str(folder / name))
        return folder / name
