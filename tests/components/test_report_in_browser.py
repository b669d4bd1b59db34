"""The report's page in a real browser: phone and desk, light and dark, paper, pointer and keyboard, hostile names."""

import asyncio
from typing import Any

import pytest

from components.report.page import render
from components.steps import STEPS
from tests.components import report_facts
from tests.pipeline import chromium

pytestmark = pytest.mark.skipif(chromium.find() is None, reason="needs Chromium (apt-get install chromium)")

WORDS = [
    f"{first} {second}"
    for first in ("red", "old", "tiny", "wild")
    for second in ("panda", "boat", "owl", "cup", "pine")
]


def _cases() -> dict[str, Any]:
    five = report_facts.run(WORDS[:5], each=30, wrong=0.2, baseline=True)
    cached = [(name, 0.02, True) for name, _, _ in five.steps]
    hostile = report_facts.run(report_facts.HOSTILE, each=12, wrong=0.3, baseline=True)
    return {
        "two classes, the first version": report_facts.run(["cat", "dog"]),
        "five classes, quarantine": report_facts.with_kept_out(five, 12),
        "a hundred classes": report_facts.run(report_facts.names(100), each=8, wrong=0.2, baseline=True),
        "a thousand classes and files": report_facts.with_kept_out(
            report_facts.run(report_facts.names(1000), each=4, wrong=0.2, baseline=True), 1000
        ),
        "hostile names": report_facts.with_kept_out(hostile, 1000, report_facts.HOSTILE),
        "refused": report_facts.refused(report_facts.run(WORDS, each=20, wrong=0.3, baseline=True)),
        "failed in ingestion": report_facts.failed(
            report_facts.with_kept_out(report_facts.run(), 60), STEPS["ImageExampleGen"], "x" * 600
        ),
        "failed in training": report_facts.failed(five, STEPS["Trainer"], "the loss is NaN"),
        "everything cached": report_facts.changed(five, steps=cached),
    }


CASES = _cases() if chromium.find() else {}

# The colours that a text has and lies on, as numbers, with the contrast of the two (WCAG 2).
CONTRASTS = """
(() => {
  const parse = colour => (colour.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * x + .7152 * y + .0722 * z;
  };
  const ground = element => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  let worst = [99, ""];
  for (const element of document.querySelectorAll("body *")) {
    const text = [...element.childNodes].filter(node => node.nodeType === 3).map(node => node.data.trim()).join("");
    if (!text || !element.getClientRects().length || element.closest("script, style")) continue;
    const svg = element.ownerSVGElement;
    if (svg && svg.classList.contains("wide")) continue; // on cells: test_report_page.py
    const style = getComputedStyle(element);
    const [a, b] = [light(parse(svg ? style.fill : style.color)), light(ground(element))];
    const contrast = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (contrast < worst[0]) worst = [contrast, text.slice(0, 60)];
  }
  return worst;
})()
"""
SHAPE = "({inside: document.documentElement.scrollWidth <= innerWidth, width: innerWidth})"
GROUND = "getComputedStyle(document.body).backgroundColor"
FOLDED = """[...document.querySelectorAll('details:not([open])')].map(details =>
  details.getBoundingClientRect().height - details.querySelector('summary').getBoundingClientRect().height)"""
INJECTED = """({ran: window.ran === undefined, scripts: document.scripts.length,
  handlers: [...document.querySelectorAll('*')].flatMap(e => e.getAttributeNames()).filter(k => k.startsWith('on')),
  requests: performance.getEntriesByType('resource').filter(entry => !entry.name.startsWith('data:')).length})"""

# Where the middle of a cell of the matrix is in the window.
MIDDLE = """
(() => {
  const svg = document.querySelector('.matrix svg');
  const {left, top, cell} = JSON.parse(document.querySelector('#cells').text);
  svg.scrollIntoView({block: 'center'});
  const at = new DOMPoint(left + cell * (COLUMN + .5), top + cell * (ROW + .5)).matrixTransform(svg.getScreenCTM());
  return [at.x, at.y];
})()
"""


async def _media(page, media: str = "", dark: bool = False) -> None:
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    await page.call("Emulation.setEmulatedMedia", media=media, features=[scheme])


async def _width(page, width: int) -> dict[str, Any]:
    await page.call(
        "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
    )
    return await page.value(SHAPE)


async def _look(page) -> dict[str, Any]:
    seen: dict[str, Any] = {"phone": await _width(page, 360), "desk": await _width(page, 1400)}
    for name, dark in (("light", False), ("dark", True)):
        await _media(page, dark=dark)
        seen[name] = {"ground": await page.value(GROUND), "contrast": await page.value(CONTRASTS)}
    await _media(page, "print", dark=True)
    seen["paper"] = {
        "ink": await page.value("getComputedStyle(document.body).color"),
        "folded": await page.value(FOLDED),
    }
    await _media(page)
    seen["screen"] = {"folded": await page.value(FOLDED)}
    seen["text"] = await page.value("document.body.innerText")
    seen["injected"] = await page.value(INJECTED)
    return seen


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> dict[str, dict[str, Any]]:
    """What one browser saw of all pages."""
    folder = tmp_path_factory.mktemp("reports")

    async def steps() -> dict[str, dict[str, Any]]:
        found = {}
        async with chromium.browser() as page:
            for name, facts in CASES.items():
                await _open(page, folder, name, facts)
                found[name] = await _look(page)
                found[name]["errors"], page.errors = page.errors, []
        return found

    return asyncio.run(steps())


async def _open(page, folder, name: str, facts) -> None:
    file = folder / f"{name}.html"
    file.write_text(render(facts))
    await page.open(file.as_uri())
    await page.until("document.readyState === 'complete' && document.querySelector('main')")


@pytest.mark.parametrize("case", CASES)
def test_page_opens_without_an_error_or_a_request(seen, case):
    assert seen[case]["errors"] == []
    assert seen[case]["injected"]["requests"] == 0


@pytest.mark.parametrize("case", CASES)
def test_page_is_no_wider_than_the_window(seen, case):
    assert seen[case]["phone"] == {"inside": True, "width": 360}
    assert seen[case]["desk"]["inside"]


@pytest.mark.parametrize("case", CASES)
def test_text_can_be_read_in_both_schemes(seen, case):
    assert seen[case]["light"]["ground"] != seen[case]["dark"]["ground"]
    for scheme in ("light", "dark"):
        contrast, text = seen[case][scheme]["contrast"]
        assert contrast >= 4.5, f"{text!r} in the {scheme} scheme"


@pytest.mark.parametrize("case", CASES)
def test_paper_is_light_and_shows_what_is_folded(seen, case):
    assert seen[case]["paper"]["ink"] == "rgb(27, 32, 29)"
    assert all(height == 0 for height in seen[case]["screen"]["folded"])
    assert seen[case]["paper"]["folded"]
    assert all(height > 20 for height in seen[case]["paper"]["folded"])


def test_no_name_becomes_code(seen):
    injected = seen["hostile names"]["injected"]
    assert injected == {"ran": True, "scripts": 2, "handlers": [], "requests": 0}
    assert "<script>window.ran = 1</script>" in seen["hostile names"]["text"]
    assert '"><img src=x onerror="window.ran = 2">' in seen["hostile names"]["text"]


def test_a_pointer_and_the_arrow_keys_name_the_cells_of_the_matrix(tmp_path):
    facts = report_facts.changed(report_facts.run(["cat", "dog"]), confusion=[[1234, 1], [0, 7]])
    said = "document.querySelector('.matrix output').textContent"

    async def steps() -> None:
        async with chromium.browser() as page:
            await _open(page, tmp_path, "matrix", facts)
            # A phone shrinks the chart.
            for width in (1400, 360):
                await _width(page, width)
                for row, column, words in (
                    (0, 0, "true cat, predicted cat: 1,234 images"),
                    (0, 1, "true cat, predicted dog: 1 image"),
                    (1, 0, "true dog, predicted cat: 0 images"),
                ):
                    x, y = await page.value(MIDDLE.replace("ROW", str(row)).replace("COLUMN", str(column)))
                    await page.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
                    assert await page.value(said) == words
            await page.value("document.querySelector('.matrix .scroll').focus()")
            await page.key("ArrowRight", 39)
            assert await page.value(said) == "true dog, predicted dog: 7 images"
            await page.key("ArrowUp", 38)
            assert await page.value(said) == "true cat, predicted dog: 1 image"
            assert page.errors == []

    asyncio.run(steps())


def test_a_click_or_a_key_on_a_title_sorts_the_table_and_without_scripts_all_is_there(tmp_path):
    facts = report_facts.run(["b", "a", "c 10", "c 9"])
    column = "[...document.querySelectorAll('#evaluation .sortable tbody tr')].map(row => row.cells[0].innerText)"
    head = "#evaluation .sortable thead th"

    async def steps() -> None:
        async with chromium.browser() as page:
            await _open(page, tmp_path, "sorted", facts)
            await page.value(f"document.querySelector('{head} button').focus()")
            await page.key("Enter", 13, "\r")
            assert await page.value(column) == ["a", "b", "c 9", "c 10"]
            assert await page.value(f"document.querySelector('{head}').ariaSort") == "ascending"
            await page.value(f"document.querySelector('{head} button').click()")
            assert await page.value(column) == ["c 10", "c 9", "b", "a"]
            await page.value(f"document.querySelectorAll('{head} button')[1].click()")
            images = f"{column.replace('cells[0]', 'cells[1]')}.map(Number)"
            assert await page.value(images) == sorted(await page.value(images))
            assert await page.value(f"document.querySelectorAll('{head}[aria-sort]').length") == 1
            assert page.errors == []
            await page.call("Emulation.setScriptExecutionDisabled", value=True)
            await page.call("Page.reload")
            await page.until("document.readyState === 'complete' && document.querySelector('main')")
            assert await page.value(f"document.querySelectorAll('{head} button').length") == 0
            assert await page.value(f"{column}.length") == 4

    asyncio.run(steps())
