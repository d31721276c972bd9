"""The gallery in a browser, by keys and clicks. Skipped where there is no Chromium."""

from __future__ import annotations

import json
import shutil
import wave
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from browser_support import Page, chromium, opened_page
from PIL import Image
from test_cli import Call, call
from test_gallery import HOSTILE, Make, clip, data_of, make, sheet_of

from batch import manifest

__all__ = ["call", "make"]  # fixtures

pytestmark = pytest.mark.skipif(chromium() is None, reason="there is no Chromium here")

IMAGES = Path(__file__).parents[1] / "manifests" / "images"
SHOWN = "[...document.querySelectorAll('.card .name')].map((e) => e.textContent.replace(/ +/g, ' '))"
CURRENT = "document.activeElement.closest('.card')?.querySelector('.name').textContent"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with opened_page(tmp_path_factory.mktemp("browser")) as page:
        page.look(1280, 900)
        yield page


@pytest.fixture
def page(browser: Page) -> Iterator[Page]:
    """The browser's page without picks; at the end, it has asked for files only and nothing went wrong in it."""
    browser.asked.clear()
    browser.said.clear()
    yield browser
    browser.js("localStorage.clear()")
    assert browser.said == []
    assert {urlsplit(url).scheme for url in browser.asked} <= {"file", "blob", "data"}


def test_films_play_under_the_pointer_silently_and_stop_behind_it(page: Page, make: Make, tmp_path: Path) -> None:
    film = clip(tmp_path / "outputs" / "a #1?.mp4", frames=50)
    page.open(make(sheet_of("a,waves,https://e.com/a.jpg", "b,dunes,https://e.com/b.jpg"), {"a": film}).path)
    page.wait("document.querySelector('.card img').naturalWidth > 0")
    assert page.js("document.querySelectorAll('video').length") == 0
    page.hover(".card .media")
    page.wait("document.querySelector('video')?.currentTime > 0")
    assert page.js("[document.querySelector('video').muted, document.querySelector('video').loop]") == [True, True]
    page.hover("h1")
    page.wait("document.querySelectorAll('video').length === 0")


def test_who_wants_less_motion_gets_none_by_itself(page: Page, make: Make, tmp_path: Path) -> None:
    page.look(1280, 900, prefers_reduced_motion="reduce")
    page.open(make(sheet_of("a,waves,https://e.com/a.jpg"), {"a": clip(tmp_path / "outputs" / "a.mp4")}).path)
    page.hover(".card .media")
    page.key("j", "Enter")
    page.wait("document.querySelector('#stage video')?.readyState >= 2")
    assert page.js("[...document.querySelectorAll('video')].map((one) => one.paused)") == [True]
    page.key(" ")
    page.wait("!document.querySelector('#stage video').paused")
    page.look(1280, 900)


def test_what_stands_in_a_sheet_is_shown_as_text(page: Page, make: Make) -> None:
    quoted = '"' + HOSTILE.replace('"', '""') + '"'
    page.open(
        make(sheet_of(f"{quoted},{quoted},https://e.com/a.jpg,{quoted}", header="id,prompt,image_url,<i>note")).path
    )
    assert page.js("document.querySelector('.prompt').textContent") == HOSTILE
    page.key("j", "Enter")
    page.wait("document.querySelector('#large').open")
    assert page.js("document.querySelector('#facts .whole').textContent") == HOSTILE
    assert page.js("document.querySelectorAll('#cards b, #cards i, #facts b, #facts i').length") == 0


def test_filters_go_together_and_stand_in_the_address(page: Page, make: Make) -> None:
    rows = (
        f"{n},{'waves' if n % 2 else 'dunes'},https://e.com/a.jpg,{'calm' if n < 4 else 'wild'}" for n in range(1, 8)
    )
    path = make(sheet_of(*rows, header="id,prompt,image_url,mood")).path
    page.open(path)
    page.key("/")
    page.type("WAVES")
    page.wait("document.querySelector('#counts').textContent.startsWith('4 of 7 ')")
    for selector, value in (("#add-filter", "mood"), ("[data-column=mood] select", "=calm")):
        page.js(
            f"(() => {{ const e = document.querySelector('{selector}'); e.value = '{value}';"
            "e.dispatchEvent(new Event('change')) })()"
        )
    assert page.js(SHOWN) == ["1", "3"]
    assert " UTC" in page.js("document.querySelector('#counts').textContent"), "nothing was run: more may come"
    address = page.js("location.hash")
    page.open(path, hash=address)
    assert page.js(SHOWN) == ["1", "3"]
    page.click("#clear")
    assert len(page.js(SHOWN)) == 7


def test_a_filter_by_a_column_begins_with_all_its_values(page: Page, make: Make) -> None:
    page.open(make(sheet_of("a,waves,https://e.com/a.jpg,calm", header="id,prompt,image_url,mood")).path)
    page.js(
        "(() => { const e = document.querySelector('#add-filter'); e.value = 'mood';"
        "e.dispatchEvent(new Event('change')) })()"
    )
    assert page.js("[...document.activeElement.options].map((e) => e.text)") == ["all", "calm (1)"]
    assert page.js("document.activeElement.selectedOptions[0].text") == "all"


def test_keys_go_from_card_to_card_and_pick_and_the_browser_remembers(page: Page, make: Make) -> None:
    path = make(sheet_of(*(f"{letter},waves,https://e.com/{letter}.jpg" for letter in "abcdefghij"))).path
    page.open(path)
    columns = page.js("getComputedStyle(document.querySelector('#cards')).gridTemplateColumns.split(' ').length")
    seen = []
    for key in ("j", "ArrowDown", "k", "ArrowUp", "End", "Home"):
        page.key(key)
        seen.append(page.js(CURRENT))
    down = "abcdefghij"[1 + columns]
    up = chr(ord(down) - 1 - columns)
    assert seen == ["b", down, chr(ord(down) - 1), up, "j", "a"]
    page.key("1", "j", "2", "j", "3", "j", "1", "1")
    picked = "[...document.querySelectorAll('[data-pick]:is(.card)')].map((e) => e.dataset.pick)"
    assert page.js(picked) == ["keep", "reject", "again"]
    page.open(path)
    page.wait("document.readyState === 'complete'")
    assert page.js(picked) == ["keep", "reject", "again"]
    assert page.js("document.querySelector('#save').ariaLabel") == "Picks: 1 keep, 1 reject, 1 again"


def test_takes_stand_side_by_side_and_play_together(page: Page, make: Make, tmp_path: Path) -> None:
    films = {f"a-{take}": clip(tmp_path / "outputs" / f"a-{take}.mp4", shade=40 * take, frames=50) for take in (1, 2)}
    path = make(
        sheet_of("a,waves,https://e.com/a.jpg,2", "b,dunes,https://e.com/b.jpg,", header="id,prompt,image_url,takes"),
        films,
    )
    page.open(path.path)
    assert page.js("[...document.querySelectorAll('.group')].map((e) => e.querySelectorAll('.card').length)") == [2, 1]
    assert page.js(SHOWN)[:2] == ["a take 1", "a take 2"]
    page.key("Home", "c")
    page.wait("[...document.querySelectorAll('#stage video')].filter((one) => one.currentTime > 0).length === 2")
    assert page.js("[...document.querySelectorAll('figcaption b')].map((e) => e.textContent)") == ["take 1", "take 2"]
    page.key("ArrowRight", "1", "Escape")
    page.wait(f"{CURRENT} === 'a  take 2'")
    assert page.js("document.querySelectorAll('video').length") == 0


def test_pictures_sounds_and_failures_are_shown_as_they_are(page: Page, make: Make, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    Image.new("RGB", (300, 400), "teal").save(outputs / "a.png")
    with wave.open(str(outputs / "b.wav"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(b"\0\0" * 8000)
    (outputs / "c.mp4").write_bytes(b"not a film")
    files = {name: outputs / f"{name}.{end}" for name, end in (("a", "png"), ("b", "wav"), ("c", "mp4"), ("d", "mp4"))}
    page.open(make(sheet_of(*(f"{name},waves,https://e.com/a.jpg" for name in "abcde")), files).path)
    page.wait("document.querySelector('.card img').naturalWidth > 0")
    assert page.js("document.querySelectorAll('.card')[1].querySelector('audio').controls")
    signs = "[...document.querySelectorAll('.card')].map((e) => e.querySelector('.sign strong')?.textContent ?? '')"
    assert page.js(signs) == ["", "audio", "video", "the file is gone", "not run yet"]
    page.key("Home", "Enter")
    page.wait("document.querySelector('#stage img')?.naturalWidth === 300")
    page.key("ArrowRight", "ArrowRight")
    page.wait("document.querySelector('#stage')?.textContent.includes('this browser cannot play it')")
    page.key("Escape")


def test_a_result_of_words_is_read_on_its_card_and_whole_in_the_large_view(
    page: Page, make: Make, tmp_path: Path
) -> None:
    """Beside the picture that it is about, and as text whatever it holds."""
    said = f"{HOSTILE}\n" + "a long answer " * 200
    files = {name: tmp_path / "outputs" / f"{name}.json" for name in ("a", "b")}
    files["a"].parent.mkdir()
    for path in files.values():
        path.write_text("{}")
    shutil.copy(IMAGES / "moon.jpg", tmp_path)
    sheet = sheet_of("a,what is it?,moon.jpg", "b,what is it?,https://e.com/b.jpg")
    page.open(make(sheet, files, text=said, json=json.dumps({"output": said, "score": 0.5, "<i>": ["x"]})).path)
    page.wait("document.querySelector('.card img.source').naturalWidth > 0")
    assert page.js("[...document.querySelectorAll('.media .said')].map((e) => e.textContent)") == [said, said]
    assert page.js("document.querySelectorAll('#cards .said *').length") == 0
    page.key("Home", "Enter")
    assert page.js("document.querySelector('#stage .said').textContent") == said
    assert page.js(
        "(() => { const e = document.querySelector('#stage .said'); return e.scrollHeight > e.clientHeight })()"
    )
    assert page.js("document.querySelectorAll('#facts .whole')[1].textContent") == said
    assert page.js("document.querySelector('#facts dl').innerText.split(/\\s*\\n\\s*/)") == [
        "score",
        "0.5",
        "<i>",
        '["x"]',
    ]
    page.key("Escape")
    page.click("#search")
    page.type("ünï 0.5")
    page.wait("document.querySelector('#counts').textContent.startsWith('2')")


def test_words_beside_a_picture_stand_under_it(page: Page, make: Make, tmp_path: Path) -> None:
    (tmp_path / "outputs").mkdir()
    Image.new("RGB", (300, 400), "teal").save(tmp_path / "outputs" / "a.png")
    page.open(make(sheet_of("a,waves,https://e.com/a.jpg"), {"a": tmp_path / "outputs" / "a.png"}, text=HOSTILE).path)
    page.wait("document.querySelector('.card .media img').naturalWidth > 0")
    assert page.js("document.querySelector('.card .answer').textContent") == HOSTILE


def test_a_thousand_results_ask_only_for_what_is_in_view(page: Page, make: Make, tmp_path: Path) -> None:
    film = clip(tmp_path / "outputs" / "film.mp4")
    rows = [f"c{n:04},waves number {n},https://e.com/a.jpg" for n in range(1000)]
    page.open(make(sheet_of(*rows), {f"c{n:04}": film for n in range(1000)}).path)
    page.wait("document.querySelectorAll('.card').length === 1000")
    assert page.js("document.querySelectorAll('.card img[data-src]').length") > 900
    page.key("End")
    assert page.js(CURRENT) == "c0999"
    page.wait("document.activeElement.querySelector('img').naturalWidth > 0")
    assert page.js("document.querySelectorAll('.card img[data-src]').length") > 800


def test_what_is_picked_is_saved_and_runs(page: Page, call: Call, tmp_path: Path) -> None:
    """From the first run to the second, as a person does it."""
    for name in ("moon", "rocket"):
        shutil.copy(IMAGES / f"{name}.jpg", tmp_path)
    header = "id,prompt,image_url,duration,resolution,mood"
    (tmp_path / "shots.csv").write_text(
        sheet_of("moon,it rises,moon.jpg,2,480p,calm", '"the, rocket",it starts,rocket.jpg,2,480p,', header=header)
    )
    assert call("run", "shots.csv", "--local", "-q").code == 0
    made = json.loads(call("gallery", "shots.csv", "--local", "--json").out)
    page.open(Path(made["path"]))
    page.key("Home", "1", "j", "3")
    page.click("#save")
    page.wait("document.querySelector('#picks').open")
    assert page.js("document.querySelector('#picks-again code:last-of-type').textContent") == (
        "fal-batch run --local shots-again.csv"
    )
    for name in ("again", "kept"):
        page.click(f"#picks-{name} button")
        shutil.copy(page.downloaded_file(f"shots-{name}.csv"), tmp_path)
    again, kept = (list(manifest.load(tmp_path / f"shots-{name}.csv").rows()) for name in ("again", "kept"))
    assert ([row.id for row in again], [row.id for row in kept]) == (["the, rocket-again1"], ["moon"])
    runs = [json.loads(call("run", f"shots-{name}.csv", "--local", "--json").out) for name in ("again", "kept")]
    assert [(run["submitted"], run["fetched"]) for run in runs] == [(1, 1), (0, 1)], (
        "what is kept is not paid for again"
    )
    assert unquote(data_of(Path(made["path"]))["rows"][1]["files"][0]["href"]) == "./../the, rocket.mp4"
