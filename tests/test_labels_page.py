"""The label page in a real browser without a screen: looked at, clicked through, measured."""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from orchestrator.labels.html import page
from tests.debian import missing
from tests.label_documents import STOP, document

BROWSER, DRIVER = "chromium", "chromedriver"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip

CONTRASTS = Path(__file__).with_name("label_contrast.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    reason = missing((BROWSER, DRIVER), ("chromium", "chromium-driver"))
    if reason:
        pytest.skip(f"THE LABEL PAGE WAS NOT LOOKED AT IN A BROWSER: {reason}")
    options = ChromeOptions()
    options.binary_location = str(shutil.which(BROWSER))
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "localhost,127.0.0.1")
        driver = Chrome(options=options, service=Service(str(shutil.which(DRIVER))))
        driver.set_window_size(1300, 1000)
        yield driver
        driver.quit()


class Page:
    """The page as a user has it."""

    def __init__(self, driver: Chrome, file: Path) -> None:
        self.driver = driver
        self.url = file.as_uri()

    def open(self, target: str = "", *, dark: bool = False) -> None:
        wishes = {
            "prefers-color-scheme": "dark" if dark else "light",
            "prefers-reduced-motion": "reduce",
        }
        features = [{"name": name, "value": value} for name, value in wishes.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.driver.get("about:blank")
        self.driver.get(self.url + target)

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def script(self, text: str, *values: Any) -> Any:
        return self.driver.execute_script(text, *values)

    def until(self, fits: Callable[[], Any]) -> None:
        WebDriverWait(self.driver, 5, poll_frequency=0.02).until(lambda _: fits())

    def press(self, *keys: str) -> None:
        ActionChains(self.driver).send_keys(*keys).perform()

    def hover(self, element: WebElement) -> None:
        self.script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
        ActionChains(self.driver).move_to_element(element).perform()

    def choose(self, field: str, value: str) -> None:
        self.find(f"{field} option[value='{value}']").click()

    @property
    def matches(self) -> str:
        return self.find("#matches").text

    @property
    def rows(self) -> list[int]:
        found: list[int] = self.script(
            "return [...document.querySelectorAll('.opener')].map((e) => +e.textContent)"
        )
        return found

    @property
    def tip(self) -> dict[str, str]:
        found: dict[str, str] = self.script(
            "return Object.fromEntries([...document.querySelectorAll('#tip dt')]"
            ".map((e) => [e.textContent, e.nextSibling.textContent]))"
        )
        return found

    @property
    def complaints(self) -> list[str]:
        return [str(entry["message"]) for entry in self.driver.get_log("browser")]  # type: ignore[no-untyped-call]


def written(folder: Path, made: dict[str, Any]) -> Path:
    file = folder / "report.html"
    file.write_text(page(made), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return document(120)


@pytest.fixture(scope="module")
def shown(chrome: Chrome, made: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(chrome, written(tmp_path_factory.mktemp("page"), made))


@pytest.fixture
def view(shown: Page) -> Iterator[Page]:
    shown.open()
    yield shown
    assert shown.complaints == []
    assert "Do not train yet" in shown.driver.title, "a text of the data set ran"


def test_verdict_comes_first_and_nothing_is_loaded(view: Page) -> None:
    verdict = view.find("h2")
    assert verdict.text == "Do not train yet"
    assert verdict.location["y"] < 300
    assert view.script("return performance.getEntriesByType('resource').length") == 0
    assert view.rows == list(range(50))


def test_text_begins_where_rows_differ(
    chrome: Chrome, made: dict[str, Any], shown: Page, tmp_path: Path
) -> None:
    shown.open()
    assert shown.find(".of-text.start").text.startswith("the to that the people")
    bare = {**made, "rows": [{**row, "spans": []} for row in made["rows"]]}
    view = Page(chrome, written(tmp_path, bare))
    view.open()
    assert [cell.text[:4] for cell in view.all(".start")[:2]] == ["the ", "</sc"]


def test_search_finds_text_and_marks_it(view: Page, made: dict[str, Any]) -> None:
    word = 20000 + 5
    having = [row["row"] for row in made["rows"] if word in row["ids"]]
    view.press("/")
    view.find("#query").send_keys("WORD5 ")
    view.until(lambda: "match" in view.matches)
    assert view.rows == having[:50]
    assert view.find(".start mark").text.lower() == "word5"
    view.find(".opener").click()
    assert view.find(".tokens .hit").text.strip() == "word5"
    view.find("#query").clear()
    view.find("#query").send_keys("#17")
    view.until(lambda: view.rows == [17])
    view.find("#query").clear()
    view.find("#query").send_keys("no such text")
    view.until(lambda: view.matches == "0 of 120 match")


def test_filter_by_finding(view: Page) -> None:
    view.choose("#code", "FT505")
    assert view.rows == [3, 53, 103]
    view.choose("#code", "")
    assert len(view.rows) == 50
    view.find(".show").click()
    assert view.rows == [3, 53, 103]


def test_sorting(view: Page, made: dict[str, Any]) -> None:
    by_length = sorted(made["rows"], key=lambda row: (-len(row["ids"]), row["row"]))
    view.find("[data-sort=tokens]").click()
    assert view.rows == [row["row"] for row in by_length[:50]]
    assert view.find("[aria-sort]").get_attribute("aria-sort") == "descending"
    view.find("[data-sort=tokens]").click()
    assert view.rows[0] == min(made["rows"], key=lambda row: (len(row["ids"]), row["row"]))["row"]
    assert view.find("[aria-sort]").get_attribute("aria-sort") == "ascending"


def test_pages_of_the_table(view: Page) -> None:
    view.find("#next").click()
    view.find("#next").click()
    assert view.rows == list(range(100, 120))
    assert not view.find("#next").is_enabled()
    view.find("#previous").click()
    assert view.rows[0] == 50


def test_row_opens_and_every_token_is_there(view: Page, made: dict[str, Any]) -> None:
    row = made["rows"][3]
    view.all("tr.row")[3].click()
    assert view.find(".opener[aria-expanded=true]").text == "3"
    tokens = view.all(".tokens .t")
    assert len(tokens) == len(row["ids"])
    trained = {at for start, length in row["trained"] for at in range(start, start + length)}
    on = view.script(
        "return [...document.querySelectorAll('.tokens .t.on')].map((e) => +e.dataset.at)"
    )
    assert set(on) == trained
    assert [element.text for element in view.all(".tokens .found")] == ["<|im_end|>"]
    assert "\u23ce\n" in view.script("return document.querySelector('.tokens').textContent")
    view.press(Keys.ESCAPE)
    assert view.all(".tokens") == []


def test_hover_and_focus_show_id_and_label(view: Page, made: dict[str, Any]) -> None:
    view.open("#row=3")
    row = made["rows"][3]
    masked, (trained, _) = row["ids"].index(STOP), row["trained"][0]
    view.hover(view.find(f"[data-at='{masked}']"))
    assert view.tip["id"] == str(STOP)
    assert view.tip["label"] == "-100 (masked)"
    assert view.tip["source"] == row["source"]
    view.hover(view.find(f"[data-at='{trained}']"))
    assert view.find("#tip").is_displayed()
    assert view.tip["label"] == f"{row['ids'][trained]} (trained)"
    assert view.tip["position"] == f"{trained} of {len(row['ids'])}"
    assert view.tip["span"].startswith("assistant, tokens ")
    view.find(f"[data-at='{trained}']").click()
    view.press(Keys.ARROW_RIGHT)
    assert view.tip["position"].startswith(f"{trained + 1} of")
    assert view.script("return document.activeElement.getAttribute('aria-describedby')") == "tip"


def test_spaces_and_edges_on_demand(view: Page) -> None:
    view.open("#row=2")
    assert "\u00b7" not in view.find(".tokens").text
    view.find("[data-option=spaces]").click()
    assert "\u00b7" in view.find(".tokens").text
    view.find("[data-option=edges]").click()
    assert view.all(".tokens.edges")


def test_text_that_looks_like_html_is_text(view: Page) -> None:
    view.open("#row=1")
    text = view.find(".tokens").text
    assert '</script><script>document.title="broken"</script><img src=x' in text
    assert "[U+202E]right to left[U+202C]" in text
    assert "[U+2028]\u2400\u241b[31m" in text
    assert view.all(".tokens img, .tokens script") == []


def test_characters_in_pieces_are_put_together(view: Page, made: dict[str, Any]) -> None:
    assert view.find("#pieces").is_displayed()
    view.find("#query").send_keys("na\u00efve\ufffd")
    view.until(lambda: view.rows == [1])
    view.find(".opener").click()
    first = made["rows"][1]["ids"].index(31009)
    shown = [view.find(f"[data-at='{first + i}']") for i in range(3)]
    texts = [view.script("return arguments[0].textContent", piece) for piece in shown]
    assert texts == [" na\u00ef", "", "ve\ufffd"]
    view.hover(shown[1])
    assert (view.tip["token"], view.tip["id"]) == ("<AF>", "31010")


def test_keyboard_alone(view: Page) -> None:
    view.press("j", "j", "j", "k")
    assert view.script("return document.activeElement.textContent") == "1"
    view.press(Keys.ARROW_DOWN, Keys.ENTER)
    assert view.find("tr.open .opener").text == "2"
    assert view.driver.current_url.endswith("#row=2")
    view.press("j")
    assert view.find("tr.open .opener").text == "3"
    view.press(Keys.ESCAPE)
    assert view.all("tr.open") == []
    assert "#" not in view.driver.current_url
    assert view.script("return document.activeElement.textContent") == "3"


def test_links_jump_to_row_and_token(view: Page, made: dict[str, Any]) -> None:
    example = made["findings"][1]["examples"][0]
    view.find(".example figcaption a").click()
    view.until(lambda: view.all("tr.open"))
    focused = view.script("return document.activeElement.dataset.at")
    assert focused == str(example["token"])
    assert view.tip["label"] == "-100 (masked)"
    view.open("#row=110")
    assert view.find("tr.open .opener").text == "110"
    view.open("#row=5000")
    assert view.matches == "Row 5000 is not in this page."


def test_copy_button(view: Page, made: dict[str, Any]) -> None:
    view.driver.execute_cdp_cmd(
        "Browser.grantPermissions",
        {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]},
    )
    view.find(".copy").click()
    view.until(lambda: view.find(".copy").text == "Copied")
    copied = view.driver.execute_async_script(
        "navigator.clipboard.readText().then(arguments[0], arguments[0])"
    )
    assert copied == made["findings"][1]["fix"]


@pytest.mark.parametrize("dark", [False, True])
def test_readable_in_light_and_dark(view: Page, dark: bool) -> None:
    view.open("#row=3&token=60", dark=dark)
    before = view.script("return getComputedStyle(document.body).backgroundColor")
    assert (sum(int(part) for part in before[4:-1].split(",")) < 200) is dark
    view.find("#query").send_keys("the")
    view.until(lambda: view.all("mark.hit"))
    view.find(".opener").click()
    view.hover(view.find(".tokens .on"))
    seen, bad = view.script(CONTRASTS)
    assert seen > 300
    assert bad == {}
    view.find("#theme").click()
    after = view.script("return getComputedStyle(document.body).backgroundColor")
    assert (sum(int(part) for part in after[4:-1].split(",")) > 600) is dark
    assert view.script(CONTRASTS)[1] == {}


def test_narrow_screen_has_no_sideways_scrolling(view: Page) -> None:
    size = {"width": 380, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    view.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        view.open("#row=3&token=60")
        assert view.script("return document.documentElement.scrollWidth") == 380
        assert view.find(".tokens").size["width"] > 280
        tip = view.find("#tip").rect
        assert tip["x"] >= 0
        assert tip["x"] + tip["width"] <= 380
    finally:
        view.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_pairs_have_a_filter_by_part(chrome: Chrome, tmp_path: Path) -> None:
    view = Page(chrome, written(tmp_path, document(20, pairs=True)))
    view.open("#row=4&part=rejected")
    assert view.find("tr.open .of-part").text == "rejected"
    view.choose("#part", "chosen")
    assert view.rows == list(range(20))
    assert view.complaints == []


def test_long_packed_row_opens_at_once(chrome: Chrome, tmp_path: Path) -> None:
    view = Page(chrome, written(tmp_path, document(1, tokens=16_000, odd=False)))
    view.open()
    took = view.script(
        "const start = performance.now(); document.querySelector('.opener').click();"
        "document.body.getBoundingClientRect(); return performance.now() - start"
    )
    assert view.script("return document.querySelectorAll('.tokens .t').length") > 10_000
    assert took < 3000


def test_without_script_the_verdict_and_the_findings_are_there(view: Page) -> None:
    command = "Emulation.setScriptExecutionDisabled"
    view.driver.execute_cdp_cmd(command, {"value": True})
    try:
        view.open()
        assert view.find("h2").text == "Do not train yet"
        assert len(view.all(".finding")) == 2
        assert "needs JavaScript" in view.find("main").text
        assert not view.find("#table").is_displayed()
    finally:
        view.driver.execute_cdp_cmd(command, {"value": False})


def test_five_thousand_rows_are_usable(
    chrome: Chrome, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    data = document(5000)
    found = f"{sum(20_000 + 8999 in row['ids'] for row in data['rows'])} of 5,000 match"
    file = written(tmp_path, data)
    view = Page(chrome, file)
    view.open()
    loaded = view.script("return performance.getEntriesByType('navigation')[0].loadEventEnd / 1000")
    times = {"load": loaded, "megabytes": file.stat().st_size / 1e6}
    query = view.find("#query")
    steps: list[tuple[str, Callable[[], Any], Callable[[], Any]]] = [
        ("search", lambda: query.send_keys("word8999"), lambda: view.matches == found),
        (
            "clear",
            lambda: query.send_keys(Keys.BACKSPACE * 8),
            lambda: view.matches == "5,000 rows",
        ),
        ("sort", view.find("[data-sort=share]").click, lambda: view.all(".of-share[aria-sort]")),
        ("page", view.find("#next").click, lambda: view.find("#place").text.startswith("51")),
        ("open", lambda: view.find(".opener").click(), lambda: view.all(".tokens .t")),
    ]
    for name, act, done in steps:
        start = time.perf_counter()
        act()
        view.until(done)
        times[name] = time.perf_counter() - start
    for name, value in times.items():
        record_property(name, round(value, 3))
        print(f"{name}: {value:.2f}")  # noqa: T201
    assert times.pop("megabytes") < 15
    assert times.pop("load") < 3
    assert all(value < 2 for value in times.values()), times
    assert view.complaints == []
