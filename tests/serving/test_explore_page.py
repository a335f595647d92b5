"""The page /explore in a real browser."""

import json

import pytest
from playwright.sync_api import expect

from serving import embedded_server
from tests.helpers import browsers

pytestmark = browsers.NEEDS_CHROMIUM

NASTY = "<img src=x onerror=document.title='attacked'>"
WHY = {
    "version": "1152921504606846977",
    "index": 2,
    "request_id": "r",
    "timestamp": "1511600000123456789",
    "user": {"fields": {"user_id": NASTY, "age": None}, "unknown": []},
    "history": [
        {"fields": {"item_id": "old"}, "unknown": []},
        {"fields": {"item_id": "made up"}, "unknown": ["item_id"]},
        {"fields": {"item_id": "new"}, "unknown": []},
    ],
    "candidates": [
        {
            "fields": {"item_id": NASTY},
            "unknown": [],
            "label": 0,
            "score": 0.75,
            "confidence": [0.75, 0.25],
            "attention": [[0.5, 0.5, 0.0], [0.0, 0.5, -0.5]],
        },
        {
            "fields": {"item_id": "second"},
            "unknown": [],
            "label": 1,
            "score": 0.5,
            "confidence": [0.5, 0.5],
            "attention": [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]],
        },
    ],
}


@pytest.fixture(scope="module")
def address(toy_version, toy_data):
    with embedded_server.running(toy_version.parent, "ctr", explore=str(toy_data.path)) as running:
        yield f"{running.root}/explore"


@pytest.fixture
def page(browser, request):
    """A page that fails the test if anything goes wrong in its console."""
    page = browser.new_page(**getattr(request, "param", {}))
    page.set_default_timeout(20_000)
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
    page.problems = problems
    yield page
    page.close()
    assert not problems


@pytest.fixture
def staged(page, address):
    """The page with answers made up here: two experts, and values that look like markup."""
    answers = {
        "users": {
            "users": [
                {"user": NASTY, "requests": 2, "unknown": False},
                {"user": "stranger", "requests": 1, "unknown": True},
            ],
            "found": 80,
            "unknown": 3,
            "split": "test",
        },
        "requests": [2, 9],
        "why": WHY,
    }

    def answer(route):
        path = route.request.url.split("/explore/")[1].split("?")[0]
        route.fulfill(json=answers[path])

    page.route("**/explore/*?*", answer)
    page.goto(address)
    page.get_by_role("button", name="onerror").click()
    expect(page.get_by_role("radio")).to_have_count(2)
    return page


def texts(locator):
    return [" ".join(text.split()) for text in locator.all_inner_texts()]


def test_search_for_a_user_and_see_the_ranking(page, address):
    page.goto(address)
    users = page.locator("#users").get_by_role("button")
    expect(page.locator("#found")).to_contain_text("users in the test split")
    everyone = users.count()
    page.get_by_role("searchbox", name="Search by user").fill("USER 1")
    expect(users).to_have_count(1)
    assert everyone > 1
    users.first.click()
    expect(page.get_by_role("heading", name="User user 1")).to_be_focused()
    expect(users.first).to_have_attribute("aria-pressed", "true")
    index = (
        page.get_by_label("Request").input_value() if page.locator("#which").is_visible() else None
    )
    shown = [float(text) for text in texts(page.locator(".candidate .score"))]
    assert shown == sorted(shown, reverse=True)
    if index is not None:
        why = json.loads(page.request.get(f"{address}/why?request={index}").text())
        assert shown == [round(candidate["score"], 4) for candidate in why["candidates"]]


def test_experts_clicks_and_unknown_values_are_shown(staged):
    first, second = texts(staged.locator(".candidate"))
    assert first.endswith("0.7500 Expert 1 75% Expert 2 25%")
    assert second == "item_id second clicked 0.5000 Expert 1 50% Expert 2 50%"
    widths = staged.locator(".candidate .fill").evaluate_all(
        "fills => fills.map(f => f.style.width)"
    )
    assert widths == ["75%", "25%", "50%", "50%"]
    assert texts(staged.locator("#history li")) == [
        "3 item_id new -0.125",
        "2 item_id unknown unknown to the model 0.500",
        "1 item_id old 0.375",
    ]
    expect(staged.locator("#subtitle")).to_contain_text(f"version {WHY['version']} ")
    assert texts(staged.locator("#facts")) == [
        f"user_id {NASTY} age missing request r time stamp {WHY['timestamp']}"
    ]


def attention(page):
    return [float(text.split()[-1]) for text in texts(page.locator("#history li"))]


def test_attention_is_that_of_the_chosen_candidate_and_expert(staged):
    assert attention(staged) == [-0.125, 0.5, 0.375]
    expect(staged.locator("#history .fill.against")).to_have_count(1)
    expect(staged.locator("#history-help")).to_contain_text("Orange counts against")
    staged.get_by_label("Attention of").select_option("expert 2")
    assert attention(staged) == [-0.5, 0.5, 0.0]
    staged.get_by_role("radio").nth(1).check()
    assert attention(staged) == [1.0, 0.0, 0.0]
    staged.get_by_label("Attention of").select_option("all experts, by confidence")
    assert attention(staged) == [0.5, 0.0, 0.5]


def test_strangers_are_told_apart(staged):
    expect(staged.locator("#found")).to_contain_text("3 unknown to the model, dashed and last")
    expect(staged.locator("#users button.unknown")).to_have_text(["stranger"])


def test_the_spread_of_attention_is_told_and_flat_weights_are_called_so(staged, page):
    help_text = staged.locator("#history-help")
    expect(help_text).to_contain_text("From -0.125 to 0.500.")
    expect(staged.locator("#candidates-help")).not_to_contain_text("alike")
    flat = [{**one, "confidence": [0.51, 0.49], "attention": [[0.33, 0.34, 0.33]] * 2}
            for one in WHY["candidates"]]  # fmt: skip
    page.route("**/explore/why?*", lambda route: route.fulfill(json=WHY | {"candidates": flat}))
    staged.get_by_label("Request", exact=True).select_option("2 of 2")
    expect(help_text).to_contain_text("From 0.330 to 0.340: flat")
    expect(staged.locator("#candidates-help")).to_contain_text("count alike (50% each)")


def test_values_are_text_never_markup(staged):
    assert NASTY in staged.locator(".candidate").first.inner_text()
    assert staged.locator("main img").count() == 0
    assert staged.title() == "Explore rankings"


def test_keyboard_alone_is_enough(staged):
    staged.keyboard.press("Tab")
    expect(staged.get_by_label("Request", exact=True)).to_be_focused()
    staged.keyboard.press("Tab")
    expect(staged.get_by_role("radio").first).to_be_focused()
    staged.keyboard.press("ArrowDown")
    expect(staged.get_by_role("radio").nth(1)).to_be_checked()
    expect(staged.locator("#history-help")).to_contain_text("Attention of candidate 2")


def test_address_names_what_is_shown(staged, address):
    staged.get_by_label("Request", exact=True).select_option("2 of 2")
    staged.wait_for_url("**&request=9")
    assert "user=%3Cimg" in staged.url


def test_address_opens_a_request(page, address):
    index = json.loads(page.request.get(f"{address}/requests?user=user+1").text())[0]
    page.goto(f"{address}#user=user+1&request={index}")
    expect(page.locator("#facts")).to_contain_text(f"test:{index}")


def test_unknown_user_is_reported(page, address):
    with page.expect_console_message(lambda said: "404" in said.text) as refused:
        page.goto(f"{address}#user=nobody")
    expect(page.get_by_role("alert")).to_contain_text("No user 'nobody'")
    page.problems.remove(refused.value.text)
    with page.expect_response(lambda answer: "/users?" in answer.url):  # which says nothing of it
        page.get_by_role("searchbox").fill("1")
    expect(page.locator("#users button")).to_have_count(1)
    expect(page.get_by_role("alert")).to_contain_text("No user 'nobody'")


@pytest.mark.parametrize(
    "page",
    [
        {"viewport": {"width": 320, "height": 640}, "color_scheme": scheme}
        for scheme in ("light", "dark")
    ],
    indirect=True,
    ids=["light", "dark"],
)
def test_phones_light_and_dark(staged):
    assert staged.evaluate("document.documentElement.scrollWidth") == 320
    contrasts = staged.evaluate(browsers.CONTRASTS)
    assert len(contrasts) >= 8
    assert min(contrasts.values()) >= 4.5, contrasts
    dark = staged.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    page_colour = staged.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, page_colour[4:-1].split(","))) < 200) is dark
