"""The page in a real browser: the feed, actions that change it, a pin up close, nothing from the network."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from bentos.access import FrontDoor
from bentos.log_segments import read
from bentos.page_app import page as page_app
from tests.bentos.browser import CHROMIUM, Browser
from tests.bentos.fakes import COOK, FOLLOWER, GARDENER
from tests.bentos.servers import Server, free_port, python, serving

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
]

CARDS = "#feed .card:not(.skeleton)"
SHOWN = f"document.querySelectorAll('{CARDS}').length"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("page")
    command = python("-m", "tests.bentos.preview", "--port", "{port}", "--home", str(home))
    with serving(command, home) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as opened:
        yield opened


@pytest.fixture
def page(server: Server, browser: Browser) -> Iterator[Browser]:
    """The page, fresh, on the cook's feed; no script error may happen in a test."""
    browser.errors.clear()
    browser.go("about:blank")
    browser.go(f"{server.url}/ui/#user={COOK}")
    browser.wait(f"{SHOWN} >= 20")
    yield browser
    assert browser.errors == []


@contextmanager
def guarded_copy(service: str, token: str) -> Iterator[str]:
    """The address of the page and the service behind it, past a door that knows one token."""
    client = httpx.AsyncClient(base_url=service, timeout=30)

    async def passed_on(request: Request) -> Response:
        answer = await client.post(request.url.path, json=await request.json())
        return Response(answer.content, answer.status_code, media_type="application/json")

    paths = ("/users", "/homefeed", "/events", "/related", "/related_ads", "/pins")
    routes = [Mount("/ui", page_app()), *(Route(path, passed_on, methods=["POST"]) for path in paths)]
    known = f"{hashlib.sha256(token.encode()).hexdigest()} read,events"
    app, port = FrontDoor(Starlette(routes=routes), {"CORKBOARD_TOKENS": known}), free_port()
    running = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning"))
    thread = threading.Thread(target=running.run)
    thread.start()
    try:
        while not running.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{port}"
    finally:
        running.should_exit = True
        thread.join()


def text(page: Browser, selector: str) -> str:
    return page.eval(f"document.querySelector('{selector}').textContent")


def test_a_masonry_of_pins_each_saying_why(page: Browser) -> None:
    assert page.eval(
        f"[...document.querySelectorAll('{CARDS} .why .text')].every(w => w.textContent.length > 3)"
    )
    assert page.eval("document.querySelectorAll('#feed .column').length") >= 4
    tops = page.eval(f"[...document.querySelectorAll('{CARDS}')].map(c => c.getBoundingClientRect().left)")
    assert len(set(tops)) >= 4
    assert f"User {COOK}" in text(page, "#picker .who")


def test_saving_tells_the_service_and_changes_what_comes(page: Browser, server: Server) -> None:
    pin = page.eval(f"document.querySelectorAll('{CARDS}')[1].dataset.pin")
    tail = page.eval(f"[...document.querySelectorAll('{CARDS}')].slice(-10).map(c => c.dataset.pin)")
    page.eval(f"document.querySelectorAll('{CARDS}')[1].querySelector('[data-action=save]').click()")
    page.wait("document.querySelector('#toasts').textContent.includes('Saved · your feed has changed')")
    page.wait("document.querySelectorAll('#feed .card.fresh').length > 0")
    assert page.eval(f"document.querySelector('.card[data-pin=\"{pin}\"] .primary').classList.contains('done')")
    now = page.eval(f"[...document.querySelectorAll('{CARDS}')].slice(-10).map(c => c.dataset.pin)")
    assert now != tail
    logged = [r for r in read(server.home / "events", "actions") if str(r.pin_id) == pin]
    assert [(r.user_id, r.action, r.surface) for r in logged] == [(COOK, "save", "homefeed")]
    assert logged[0].request_id


def test_hiding_takes_the_pin_away_for_good(page: Browser) -> None:
    pin = page.eval(f"document.querySelectorAll('{CARDS}')[2].dataset.pin")
    page.eval(f"document.querySelectorAll('{CARDS}')[2].querySelector('[data-action=hide]').click()")
    page.wait(f"!document.querySelector('#feed .card[data-pin=\"{pin}\"]')")
    page.eval("document.getElementById('refresh').click()")
    page.wait(f"!document.querySelector('.skeleton') && {SHOWN} >= 20")
    assert page.eval(f"!document.querySelector('.card[data-pin=\"{pin}\"]')")


def test_a_pin_up_close_and_back(page: Browser, server: Server) -> None:
    page.eval(f"document.querySelectorAll('{CARDS}')[0].click()")
    page.wait("document.querySelectorAll('#closeup .masonry .card:not(.skeleton)').length >= 5")
    first = text(page, "#closeup h2")
    assert text(page, "#closeup .masonry .why").startswith(("Similar to", "Often saved with"))
    page.eval("document.querySelector('#closeup .masonry .card').click()")
    page.wait(f"document.querySelector('#closeup h2').textContent !== {first!r}")
    page.eval("history.back()")
    page.wait(f"document.querySelector('#closeup h2')?.textContent === {first!r}")
    page.eval("document.dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape'}))")
    page.wait("document.getElementById('closeup').hidden")
    closeups = [r for r in read(server.home / "events", "actions") if getattr(r, "action", "") == "closeup"]
    assert len(closeups) >= 2, "opening a pin is an action of its own"


def test_picking_another_user(page: Browser) -> None:
    page.eval("document.querySelector('.who').click()")
    page.wait("!document.querySelector('.menu').hidden")
    assert page.eval("document.querySelectorAll('.menu li').length") == 3
    wanted = f"l => l.textContent.includes('User {GARDENER}')"
    page.eval(f"[...document.querySelectorAll('.menu li')].find({wanted}).click()")
    page.wait(f"document.querySelector('.who').textContent.includes('User {GARDENER}')")
    page.wait(f"{SHOWN} >= 20 && !document.querySelector('#feed .skeleton')")
    assert f"user={GARDENER}" in page.eval("location.hash")


def test_a_user_never_seen_is_told_what_they_see(page: Browser) -> None:
    page.eval("location.hash = 'user=99'")
    page.wait("!document.getElementById('notice').hidden")
    assert "Nothing is known of user 99" in text(page, "#notice")


def test_reasons_filter_the_feed(page: Browser) -> None:
    page.eval(f"location.hash = 'user={FOLLOWER}'")
    page.wait("document.querySelector('.reason.topic')")
    page.eval("document.querySelector('.reason.topic').click()")
    shown = page.eval(
        f"[...document.querySelectorAll('{CARDS}')].filter(c => !c.hidden).map(c => c.dataset.kind)"
    )
    assert shown and set(shown) == {"topic"}


def test_how_the_feed_was_made(page: Browser) -> None:
    page.eval("document.getElementById('inspect').click()")
    drawer = text(page, "#drawer")
    shown = ("homefeed v1", "content@1", "pinnersage", "Heavy ranking", "Diversity")
    for words in (*shown, "pinnability_lr@1, not calibrated"):
        assert words in drawer


def test_a_pin_says_what_is_foretold_of_it(page: Browser) -> None:
    page.eval("document.getElementById('inspect').click()")
    assert page.eval(f"/engage \\d+(.\\d)?%/.test(document.querySelector('{CARDS} .odds-line').textContent)")
    page.eval("document.getElementById('inspect').click()")
    page.eval(f"document.querySelectorAll('{CARDS}')[0].click()")
    page.wait("document.querySelector('#closeup .odds')")
    assert "× 1" in text(page, "#closeup .odds .row") and "Utility 0." in text(page, "#closeup .odds .fine")


def test_searching_by_keyboard_and_saving_a_result(page: Browser, server: Server) -> None:
    page.eval("document.querySelector('#search input').focus()")
    page.call("Input.insertText", text="choc")
    page.wait("document.querySelectorAll('#suggestions li').length === 1")
    down = "new KeyboardEvent('keydown', {key: 'ArrowDown', bubbles: true})"
    page.eval(f"document.querySelector('#search input').dispatchEvent({down})")
    assert page.eval("document.querySelector('#search input').getAttribute('aria-activedescendant')")
    page.eval("document.querySelector('#search form').requestSubmit()")
    page.wait("location.hash.includes('q=chocolate+cake') && !document.querySelector('#feed .skeleton')")
    page.wait("['words', 'meaning'].includes(document.querySelector('#feed .card').dataset.kind)")
    pin = page.eval(f"document.querySelectorAll('{CARDS}')[1].dataset.pin")
    page.eval(f"document.querySelectorAll('{CARDS}')[1].querySelector('[data-action=save]').click()")
    page.wait("document.querySelector('#toasts').textContent.includes('Saved')")
    logged = [r for r in read(server.home / "events", "actions") if str(r.pin_id) == pin and r.query]
    assert [(r.action, r.surface, r.query) for r in logged] == [("save", "search", "chocolate cake")]
    assert logged[0].request_id
    page.eval("history.back()")
    page.wait("!location.hash.includes('q=') && document.querySelector('#search input').value === ''")


def test_typing_on_lets_go_of_a_chosen_suggestion(page: Browser) -> None:
    page.eval("document.querySelector('#search input').focus()")
    page.call("Input.insertText", text="choc")
    page.wait("document.querySelectorAll('#suggestions li').length === 1")
    chosen = page.eval(
        "(() => { const input = document.querySelector('#search input');"
        " const chosen = () => [input.hasAttribute('aria-activedescendant'),"
        " document.querySelector('#suggestions [aria-selected=true]') !== null];"
        " input.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowDown', bubbles: true}));"
        " const before = chosen(); input.dispatchEvent(new Event('input', {bubbles: true}));"
        " return [...before, ...chosen()]; })()"
    )
    assert chosen == [True, True, False, False]


def test_a_query_is_text_on_the_page(page: Browser) -> None:
    markup = "<img src=x onerror=alert(1)> 🍰"
    page.eval(f"location.hash = `user={COOK}&q=${{encodeURIComponent({markup!r})}}`")
    page.wait("document.querySelector('#feed .card:not(.skeleton)')")
    assert page.eval("document.querySelector('#search input').value") == markup
    assert page.eval("document.querySelector('img[src=x]') === null")
    page.eval(f"location.hash = `user={COOK}&q=${{encodeURIComponent('🍰')}}`")
    page.wait("document.querySelector('#notice').textContent.includes('Nothing is found for “🍰”')")


def test_light_and_dark(page: Browser) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    before = page.eval(ground)
    page.eval("document.getElementById('theme').click()")
    assert page.eval(ground) != before
    page.eval("document.getElementById('theme').click()")
    assert page.eval(ground) == before


def test_more_pins_come_at_the_end(page: Browser) -> None:
    before = page.eval(SHOWN)
    page.eval("window.scrollTo(0, document.body.scrollHeight)")
    page.wait(f"{SHOWN} > {before}")
    pins = page.eval(f"[...document.querySelectorAll('{CARDS}')].map(c => c.dataset.pin)")
    assert len(pins) == len(set(pins))


def test_an_error_has_its_name_on_the_page(page: Browser, server: Server) -> None:
    page.eval("location.hash = 'user=abc'")
    page.wait("document.querySelector('.problem')")
    assert "BadId" in text(page, ".problem") and "'abc'" in text(page, ".problem")
    page.errors[:] = [error for error in page.errors if "400" not in error]  # the browser notes the refusal


def test_the_page_asks_only_its_own_service(page: Browser, server: Server) -> None:
    hosts = {urlsplit(url).netloc for url in page.requests if url.startswith("http")}
    assert hosts == {urlsplit(server.url).netloc}


def test_behind_tokens_the_page_asks_for_one_and_keeps_it_to_itself(browser: Browser, server: Server) -> None:
    browser.errors.clear()
    token, tail = "a-reader-of-this-page", f"/ui/#user={COOK}"
    with guarded_copy(server.url, token) as url:
        before = len(browser.requests)
        browser.go(url + tail)
        for typed in ("not-this-one", token):
            browser.wait("document.querySelector('.problem .token input')?.value === ''")
            assert "Unauthorized" in text(browser, ".problem")
            browser.eval(f"document.querySelector('.token input').value = {typed!r}")
            browser.eval("document.querySelector('.token').dataset.sent = true")
            browser.eval("document.querySelector('.token').requestSubmit()")
            browser.wait("!document.querySelector('.token[data-sent]')")  # a refusal may bring the next at once
        browser.wait(f"{SHOWN} >= 20")
        browser.eval(f"document.querySelectorAll('{CARDS}')[0].querySelector('[data-action=save]').click()")
        browser.wait("document.querySelector('#toasts').textContent.includes('Saved')")
        browser.go("about:blank")
        browser.go(url + tail)
        browser.wait(f"{SHOWN} >= 20")
        assert browser.eval("localStorage.length ? JSON.stringify(localStorage) : ''").find(token) == -1
        assert not any(token in asked for asked in browser.requests[before:]), "no address carries it"
    refused = [error for error in browser.errors if "401" in error]
    assert len(refused) == len(browser.errors) == 2
