"""The web demo in a browser, from the upload to the downloads."""

import io
import json
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from llmdet.apis.web.review import DoubtfulBox, Review
from llmdet.apis.web.serving import Serving, running_demo
from llmdet.visualization.palette import detection_colors

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

HOSTILE = "<img src=x onerror=document.title='broken'>"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Headless Chromium, with a folder for downloads in ``browser.downloads``."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (program and driver):
        pytest.skip("no Chromium: apt install chromium chromium-driver")
    downloads = tmp_path_factory.mktemp("downloads")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    for argument in (
        "--headless=new",
        "--no-sandbox",  # which root cannot have
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--window-size=1400,1400",
    ):
        options.add_argument(argument)
    made = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    made.downloads = downloads
    yield made
    made.quit()


class Visitor:
    """Does on the page what a person does."""

    def __init__(self, browser, address):
        self.browser = browser
        browser.get(address)
        self.wait(lambda: self.all("#image input[type=file]"))

    def all(self, selector):
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector):
        return self.wait(lambda: self.all(selector))[0]

    def wait(self, condition):
        return WebDriverWait(self.browser, 60, poll_frequency=0.1).until(lambda _: condition())

    @property
    def summary(self):
        return self.one("#summary textarea").get_attribute("value")

    @property
    def table(self):
        return " ".join(self.one("#table").text.split())

    @property
    def shown(self):
        """Address of the shown picture."""
        found = self.all("#found img")
        return found[0].get_attribute("src") if found else None

    def until_shown(self, act):
        """Do something, and wait for the picture that it leads to."""
        before = self.shown
        act()
        self.wait(lambda: self.shown not in (None, before))
        self.wait(lambda: self.one("#found img").get_property("complete"))

    def upload(self, path):
        self.until_shown(lambda: self.one("#image input[type=file]").send_keys(str(path)))

    def find(self, words):
        field = self.one("#words textarea")
        field.clear()
        field.send_keys(words)
        self.until_shown(self.one("#find").click)

    def set_threshold(self, value):
        """Write a number beside the slider, as one does who wants to be exact."""
        field = self.one("#threshold input[type=number]")
        script = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))"
        self.until_shown(
            lambda: (
                self.browser.execute_script(script, field, value),
                self.browser.execute_script(
                    "arguments[0].dispatchEvent(new Event('blur'));"
                    "arguments[0].dispatchEvent(new Event('pointerup'))",
                    field,
                ),
            )
        )

    def geometry(self):
        """The shown picture in the window: left, top, and pixels of it per pixel of the file."""
        image = self.one("#found img")
        left, top, width, height, columns, rows = self.browser.execute_script(
            "const i = arguments[0]; const r = i.getBoundingClientRect();"
            "return [r.left, r.top, r.width, r.height, i.naturalWidth, i.naturalHeight]",
            image,
        )
        scale = min(width / columns, height / rows)  # object-fit: contain
        return left + (width - columns * scale) / 2, top + (height - rows * scale) / 2, scale

    def click_at(self, x, y):
        """Click a pixel of the shown picture's file."""
        left, top, scale = self.geometry()
        actions = ActionChains(self.browser)
        actions.w3c_actions.pointer_action.move_to_location(
            round(left + x * scale), round(top + y * scale)
        )
        actions.w3c_actions.pointer_action.click()
        actions.perform()

    def download(self, selector, name):
        path = self.browser.downloads / name
        path.unlink(missing_ok=True)
        self.one(selector).click()
        self.wait(path.is_file)
        time.sleep(0.2)  # a file is renamed when it is whole
        return path

    def value(self, selector):
        return self.one(selector).get_attribute("value")

    def screenshot(self):
        return np.array(Image.open(io.BytesIO(self.browser.get_screenshot_as_png())).convert("RGB"))


@pytest.fixture
def visitor(browser, page):
    return Visitor(browser, page)


def colour_near(screen, x, y, colour, reach=4):
    """Whether a colour stands near a pixel of the screen, as far as scaling leaves it."""
    x, y = round(x), round(y)
    part = screen[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
    return (np.abs(part.astype(int) - colour).max(axis=2) < 60).any()


def test_upload_detect_threshold_describe_and_download(visitor, photos):
    visitor.upload(photos / "coffee.png")
    assert "say what to look for" in visitor.summary
    visitor.find("red circle, dog")
    every = json.loads(visitor.download("#json", "coffee_found.json").read_text())
    scores = every["scores"]
    assert every["threshold"] == 0.3
    assert len(scores) > 3

    middle = round((scores[1] + scores[2]) / 2, 2)
    visitor.set_threshold(middle)
    some = json.loads(visitor.download("#json", "coffee_found.json").read_text())
    kept = [score for score in scores if score >= middle]
    assert some["scores"] == kept
    assert all(f"{score:.3f}".rstrip("0") in visitor.table for score in kept)
    assert f"{scores[len(kept)]:.3f}".rstrip("0") not in visitor.table

    picture = np.array(Image.open(visitor.download("#picture", "coffee_found.png")))
    scale = picture.shape[1] / some["width"]
    screen = visitor.screenshot()
    left, top, shrunk = visitor.geometry()
    colors = detection_colors(some["label_names"], some["labels"], classes=["red circle", "dog"])
    for (x1, y1, x2, y2), color in zip(some["bboxes"], colors, strict=True):
        places = [(x1, (y1 + y2) / 2), (x2, (y1 + y2) / 2), ((x1 + x2) / 2, y2)]
        seen = [
            colour_near(screen, left + x * scale * shrunk, top + y * scale * shrunk, color)
            for x, y in places
        ]
        assert any(seen)

    visitor.click_at(20 * scale, 30 * scale)
    visitor.wait(lambda: "opposite" in visitor.summary)
    visitor.until_shown(lambda: visitor.click_at(90 * scale, 120 * scale))
    own = json.loads(visitor.download("#json", "coffee_found.json").read_text())["own_boxes"]
    assert own[0]["bbox"] == pytest.approx([20, 30, 90, 120], abs=1.5)
    assert own[0]["caption"]
    assert "your box" in visitor.table
    assert own[0]["caption"] in visitor.table


def test_an_example_is_opened_and_answered(visitor):
    visitor.until_shown(visitor.one("#examples tbody tr").click)
    assert visitor.one("#words textarea").get_attribute("value")


def test_nothing_that_is_written_becomes_part_of_the_page(visitor, photos, tmp_path):
    picture = tmp_path / f"{HOSTILE.replace('/', '')}.png"
    shutil.copy(photos / "coffee.png", picture)
    visitor.upload(picture)
    visitor.find(HOSTILE)
    assert visitor.browser.title == "LLMDet"
    assert visitor.all("img[src=x]") == []


def test_the_page_fetches_nothing_from_elsewhere(visitor, page):
    visitor.one("#find")
    names = visitor.browser.execute_script(
        "return performance.getEntriesByType('resource').map(entry => entry.name)"
    )
    assert names
    assert all(name.startswith((page, "blob:", "data:")) for name in names)


class Reviewer(Visitor):
    """Decides about boxes."""

    def __init__(self, browser):
        self.browser = browser

    def reads(self, sentence):
        self.wait(lambda: self.value("#review_sentence textarea") == sentence)


@pytest.fixture
def review(photos, tmp_path):
    """Two doubtful boxes, and what was stored about them."""
    box = DoubtfulBox(photos / "coffee.png", "coffee.png", (10, 20, 80, 90), 0, 0.31)
    stored = []

    def store(decisions):
        stored.append(dict(decisions))
        return f"Saved: {len(decisions)} decisions."

    made = Review(("dog", "stop sign"), [box, replace(box, label=1, score=0.35)], store)
    made.stored = stored
    return made


def test_decisions_about_doubtful_boxes_are_saved(browser, confident, review):
    with running_demo(confident, Serving(), review=review) as blocks:
        browser.get(blocks.local_url)
        reviewer = Reviewer(browser)
        reviewer.reads("1 of 2: dog, score 0.31, in coffee.png")
        assert reviewer.one("#review_image img").get_property("naturalWidth") > 100
        reviewer.one("#review_drop button, button#review_drop").click()
        reviewer.reads("2 of 2: stop sign, score 0.35, in coffee.png")
        choice = reviewer.one("#review_class input")
        choice.send_keys("dog")
        choice.send_keys(Keys.ENTER)
        reviewer.reads("2 of 2: stop sign, score 0.35, in coffee.png (now dog)")
        reviewer.one("#review_save button, button#review_save").click()
        saved = "#review_saved textarea"
        reviewer.wait(lambda: reviewer.value(saved) == "Saved: 2 decisions.")
        assert review.stored == [{0: None, 1: 0}]
        assert "drop" in reviewer.one("#review_table").text
        browser.refresh()  # decisions stay
        reviewer.reads("1 of 2: dog, score 0.31, in coffee.png (drop)")
        browser.get("about:blank")
