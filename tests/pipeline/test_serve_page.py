"""The page of `graft serve` in a real browser: a person drops a picture and sees the classes."""

import asyncio

import pytest

from tests.pipeline import chromium
from tests.pipeline.served import BLUE, CLASSES, GREEN, RED, picture

pytestmark = pytest.mark.skipif(chromium.find() is None, reason="needs Chromium (apt-get install chromium)")

CELLS = "[...row.querySelectorAll('span')].map(cell => cell.textContent)"
ROWS = f"[...document.querySelectorAll('#classes li')].map(row => {CELLS})"
WIDTHS = "[...document.querySelectorAll('#classes i')].map(bar => parseFloat(bar.style.width))"


@pytest.fixture
def in_browser(served):
    """Runs a coroutine function with the opened page."""

    def run(steps) -> None:
        async def opened() -> None:
            async with chromium.browser() as page:
                await page.open(served.url + "/")
                await page.until("typeof about === 'object' && about")
                await steps(page)
                assert page.errors == []

        asyncio.run(opened())

    return run


def test_page_shows_the_classes_of_a_chosen_a_dropped_and_no_picture(in_browser, served, tmp_path):
    # Names that would be markup if anything took them for it.
    files = {colour: tmp_path / f"<img src=x onerror=alert({n})>.png" for n, colour in enumerate((RED, GREEN, BLUE))}
    for colour, file in files.items():
        file.write_bytes(picture(colour, size=200))
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "large.png").write_bytes(bytes(2**20))

    async def steps(page) -> None:
        (version,) = served.states()
        assert await page.value("document.body.innerText.includes('paint')")
        assert await page.value(f"document.body.innerText.includes('version {version}')")

        await page.choose("#file", files[RED])
        await page.until(f"document.querySelector('#status').textContent.startsWith({CLASSES[0]!r})")
        rows, widths = await page.value(ROWS), await page.value(WIDTHS)
        assert rows[0][0] == CLASSES[0]
        assert len(rows) == 10
        assert widths == sorted(widths, reverse=True)
        assert [float(row[1].split()[-2]) for row in rows] == pytest.approx(widths, abs=0.06)
        assert await page.value("document.querySelector('#preview').naturalWidth") == 200
        assert await page.value("document.querySelector('#caption').textContent") == files[RED].name
        assert await page.value("document.querySelectorAll('#caption *, #classes script, #classes b').length") == 0

        await page.value("document.querySelector('#all').focus()")
        await page.key("Enter", 13, "\r")
        await page.until(f"document.querySelectorAll('#classes li').length === {len(CLASSES)}")

        await page.drop(files[GREEN], 300, 300)
        await page.until(f"document.querySelector('#status').textContent.startsWith({CLASSES[1]!r})")

        await page.choose("#file", tmp_path / "text.png")
        await page.until("!document.querySelector('#error').hidden")
        message = "This file is no image that can be decoded."
        assert await page.value("document.querySelector('#error').textContent") == message
        assert await page.value("document.querySelector('#classes').hidden")

        await page.choose("#file", tmp_path / "large.png")
        await page.until("document.querySelector('#error').textContent.includes('takes at most 0.7')")

        await page.choose("#file", files[BLUE])
        await page.until("document.querySelector('#status').textContent.startsWith('blue')")
        assert await page.value("document.querySelector('#error').hidden")
        assert await page.value("window.hostile") is None

    in_browser(steps)


def test_page_fits_a_phone_and_works_by_keyboard(in_browser, tmp_path):
    (tmp_path / "a.png").write_bytes(picture())

    async def steps(page) -> None:
        await page.choose("#file", tmp_path / "a.png")
        await page.until("document.querySelectorAll('#classes li').length")
        await page.look(tmp_path / "phone.png", 360, 740)
        assert await page.value("document.documentElement.scrollWidth") <= 360
        await page.key("Tab", 9)
        assert await page.value("document.activeElement.id") == "file"
        await page.key("Tab", 9)
        assert await page.value("document.activeElement.id") == "all"

    in_browser(steps)
