"""A real browser without a screen, where this host has one: Debian's chromium and its driver, moved by Selenium."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

WAIT_S = 60


def missing() -> str:
    """Return why there is no browser here; empty when there is one."""
    lacking = [program for program in ("chromium", "chromedriver") if shutil.which(program) is None]
    return f"{' and '.join(lacking)} not installed: apt-get install chromium chromium-driver" if lacking else ""


class Page:
    """A page as its reader sees it: what isn't shown can't be clicked."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver
        self.wait = WebDriverWait(driver, WAIT_S, ignored_exceptions=[StaleElementReferenceException])

    def press(self, text: str) -> None:
        """Click the button with this text when it is there."""
        self.shown(text).click()

    def shown(self, text: str) -> WebElement:
        """Return the button with this text when it is there; the page may write it in capitals."""
        return self._shown(By.TAG_NAME, "button", text)

    def fill(self, name: str, value: str) -> None:
        """Put a value into a field of a form in place of what it has."""
        field = self._shown(By.NAME, name)
        if field.tag_name == "select":
            Select(field).select_by_value(value)
        else:
            field.send_keys(Keys.CONTROL, "a")
            field.send_keys(Keys.DELETE, value)

    def rows(self) -> dict[str, list[str]]:
        """Return the cells of the shown table by the second one, Locust's name of a request."""
        lines = [
            [cell.text for cell in row.find_elements(By.TAG_NAME, "td")]
            for row in self.driver.find_elements(By.CSS_SELECTOR, "table tbody tr")
        ]
        return {cells[1]: cells for cells in lines if len(cells) > 1}

    def _shown(self, by: str, what: str, text: str = "") -> WebElement:
        def found(driver: webdriver.Chrome) -> list[WebElement]:
            shown = [element for element in driver.find_elements(by, what) if element.is_displayed()]
            return [element for element in shown if text.lower() in ("", element.text.strip().lower())]

        return self.wait.until(found, f"the page shows no {what} {text}")[0]


@contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """Run the browser; what it keeps is in a folder of its own."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    # A container has neither the rights of a sandbox nor a large /dev/shm; the page is our own.
    for option in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1400,1400"):
        options.add_argument(option)
    options.add_argument(f"--user-data-dir={folder}")
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield Page(driver)
    finally:
        with contextlib.suppress(Exception):  # it may have crashed, which the test tells
            driver.quit()
