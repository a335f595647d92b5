"""pipeline.drafting.draft: whole drafts."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.drafting.draft import draft
from pipeline.drafting.table import summary, table
from preprocessing.features.feature import Role
from preprocessing.features.many import Many
from preprocessing.schema import Schema
from tests.helpers.foreign_logs import column, keys, ratings

USER, ITEM = keys()
SECONDS = 1_700_000_000 + 60 * np.arange(len(USER))


def _draft(log):
    return draft([column(name, values) for name, values in log.items()])


def _roles(drafted):
    return {one.column.name: one.role for one in drafted.decisions}


def _clicks(**more):
    return {"user": USER, "item": ITEM, "ts": SECONDS, **more}


def test_a_log_of_ratings():
    drafted = _draft(ratings())
    assert drafted.is_certain
    assert _roles(drafted) == {
        "memberId": Role.USER,
        "age": Role.USER,
        "gender": Role.USER,
        "movieId": Role.ITEM,
        "price (EUR)": Role.ITEM,
        "device": Role.CONTEXT,
        "watched_at": Role.TIMESTAMP,
        "stars": Role.LABEL,
        "genres": Role.ITEM,
        "review": None,
        "row_uuid": None,
        "site": None,
    }
    schema = drafted.schema
    assert (schema.user_key.name, schema.item_key.name) == ("memberId", "movieId")
    assert schema["price_EUR"].column == "price (EUR)"
    assert schema["price_EUR"].default > 0
    assert str(schema["stars"].positive) == ">=4"
    assert schema["genres"].many == Many(max=3, separator="|")
    assert schema.history.features == ("movieId", "genres")
    assert all(feature.description for feature in schema.features)
    assert Schema.from_json(schema.to_json()) == schema


@settings(max_examples=10)
@given(st.permutations([*ratings()]))
def test_the_order_of_columns_means_nothing(order):
    log = ratings()
    shuffled = _draft({name: log[name] for name in order})
    assert shuffled.schema.to_json() == _draft(log).schema.to_json()
    assert table(shuffled) == table(_draft(log))


_NAMES = ("user", "item", "ts", "date", "click", "rating", "session", "price", "label", "", "é")
_VALUES = (
    lambda rng, rows: rng.integers(0, 20, rows),
    lambda rng, rows: rng.random(rows),
    lambda rng, rows: rng.integers(0, 2, rows),
    lambda rng, rows: 1_600_000_000 + rng.integers(0, 10**6, rows),
    lambda rng, rows: rng.choice(["a|b", "NA", "1.5", "2024-01-01", "[1, 2]"], rows),
    lambda rng, rows: [f"r{row}" for row in range(rows)],
    lambda rng, rows: [None] * rows,
)


@settings(max_examples=100)
@given(
    st.dictionaries(st.sampled_from(_NAMES), st.sampled_from(_VALUES), min_size=1),
    st.sampled_from([1, 2, 30, 100]),
    st.integers(0, 99),
)
def test_any_columns_have_a_decision_each(makers, rows, seed):
    rng = np.random.default_rng(seed)
    columns = [column(name, make(rng, rows)) for name, make in makers.items()]
    drafted = draft(columns)
    assert sorted(one.column.name for one in drafted.decisions) == sorted(makers)
    assert all(one.reason for one in drafted.decisions)
    assert table(draft(columns[::-1])) == table(drafted)


def test_a_log_of_clicks_in_row_order():
    drafted = _draft({"customer": USER, "product": ITEM, "section": ITEM % 5})
    assert drafted.is_certain
    assert drafted.schema.timestamp is None
    assert drafted.schema.history.features == ("product", "section")
    assert "rows count in the order of the file" in table(drafted)
    assert summary(drafted) == (
        "user: customer; item: product, section; timestamp: none, the order of rows"
    )


def test_requests_with_candidates():
    session = USER * 100 + np.arange(len(USER)) // 100
    place = np.random.default_rng(7).integers(0, 9, len(USER))
    click = np.random.default_rng(1).integers(0, 2, len(USER))
    drafted = _draft(_clicks(session=session, click=click, place=place, hour=session % 24))
    assert drafted.is_certain
    roles = _roles(drafted)
    assert (roles["session"], roles["click"]) == (Role.REQUEST, Role.LABEL)
    assert (roles["place"], roles["hour"]) == (Role.ITEM, Role.CONTEXT)
    assert drafted.schema.history.features == ("item",)


def test_doubts_are_marked_and_listed():
    log = _clicks(member=np.random.default_rng(4).integers(0, 20, len(USER)))
    drafted = _draft(log)
    assert drafted.schema is not None
    assert not drafted.is_certain
    assert "uncertain: the user could be member or user: give the right one" in table(drafted)
    assert "user (uncertain)" in table(drafted)


def test_kinds_of_events_are_features_of_events_in_doubt():
    action = np.random.default_rng(0).choice(["view", "buy"], len(USER))
    drafted = _draft(_clicks(action=action))
    assert _roles(drafted)["action"] is Role.EVENT
    assert [feature.name for feature in drafted.schema.event_features] == ["action"]
    (doubt,) = drafted.doubts
    assert "history.behaviours" in doubt


def test_rows_that_would_be_rejected_are_in_doubt():
    items = [None if i % 20 == 0 else int(one) for i, one in enumerate(ITEM)]
    (doubt,) = _draft(_clicks() | {"item": items}).doubts
    assert doubt.startswith("5.0% of the rows lack item and would be rejected")


def test_a_file_without_a_header_is_in_doubt():
    drafted = _draft({"1": USER, "2268318": ITEM, "pv": ITEM % 4})
    assert "the first line seems to be a row (" in drafted.doubts[-1]


def test_a_log_without_users_has_no_schema():
    drafted = _draft({"item_id": ITEM, "price": ITEM + 0.5, "note": ["x"] * len(ITEM)})
    assert drafted.schema is None
    assert not drafted.is_certain
    assert drafted.doubts == ("no column can be the user",)
    assert {one.column.name for one in drafted.decisions} == {"item_id", "price", "note"}


def test_names_become_identifiers_that_nothing_else_has():
    log = _clicks(**{"7 day": ITEM % 3, "brand (a)": ITEM % 4, "brand-a": ITEM % 5})
    log["request_id"] = ITEM % 7  # no request: its rows have several users
    names = {feature.column: feature.name for feature in _draft(log).schema.features}
    assert names["7 day"] == "_7_day"
    assert {names["brand (a)"], names["brand-a"]} == {"brand_a", "brand_a_"}
    assert names["request_id"] == "request_id_value"
