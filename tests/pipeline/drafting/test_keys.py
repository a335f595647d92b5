"""pipeline.drafting.keys: the user and the item of a row."""

import pytest

from pipeline.drafting.keys import finest, item_key, key_fault, user_key, why_none
from preprocessing.features.feature import Role
from tests.helpers.foreign_logs import column, keys

USER, ITEM = keys()


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        (["a"] * 20, "one value only"),
        (["a", "b", None] * 10, "33% of the rows lack it"),
        ([f"r{i}" for i in range(30)], "nearly every row has its own value"),
        (["2024-01-01", "2024-01-02"] * 10, "times"),
        ([0.5, 1.5] * 10, "fractions"),
        (["a b c d e", "f g h i j"] * 10, "free text"),
        (["a", "b"] * 10, ""),
    ],
)
def test_what_cannot_be_a_key(values, fault):
    assert fault in key_fault(column("user_id", values))
    assert bool(fault) == bool(key_fault(column("user_id", values)))


def test_names_tell_user_and_item():
    columns = [column("visitorid", USER), column("asin", ITEM), column("brand", ITEM % 5)]
    item = item_key(columns)
    assert (item.column.name, item.role, item.doubt) == ("asin", Role.ITEM, "")
    user = user_key([columns[0], columns[2]], item.column)
    assert (user.column.name, user.role, user.doubt) == ("visitorid", Role.USER, "")


def test_a_name_that_the_data_speaks_against_is_no_key():
    columns = [column("item_id", range(len(USER))), column("sku_id", ITEM)]
    assert item_key(columns).column.name == "sku_id"
    assert item_key(columns[:1]) is None
    assert why_none(Role.ITEM, columns[:1]) == (
        "no column can be the item (item_id cannot, nearly every row has its own value)"
    )


def test_the_finest_of_several_names_is_the_key():
    items, categories = column("item_id", ITEM), column("ad_group_id", ITEM % 5)
    assert finest([categories, column("product_id", ITEM)])[0].name == "product_id"
    assert item_key([categories, items]).column.name == "item_id"
    assert (
        "it has one value each of product_key"
        in item_key([column("product_id", ITEM), column("product_key", ITEM % 5)]).reason
    )


def test_of_two_names_for_one_thing_either_is_no_doubt():
    key = item_key([column("item", ITEM), column("item_id", ITEM + 100)])
    assert (key.column.name, key.doubt) == ("item_id", "")


def test_two_columns_that_could_equally_be_the_user_are_in_doubt():
    other, _ = keys(seed=1)
    columns = [column("member_id", USER), column("customer_id", other)]
    user = user_key(columns, column("item", ITEM))
    assert user.column.name == "customer_id"
    assert "member_id could be it as well" in user.reason
    assert user.doubt == (
        'the user could be customer_id or member_id: give the right one "role": "user" as the '
        "first of that role"
    )


def test_who_offers_an_item_is_not_its_user_if_another_name_says_user():
    item = column("video", ITEM)
    uploader, viewer = column("user", ITEM % 7), column("anonymous_user_id", USER)
    assert user_key([uploader, viewer], item).column.name == "anonymous_user_id"
    assert user_key([uploader], item).column.name == "user"


def test_without_names_the_finest_column_is_taken_in_doubt():
    columns = [
        column("a", ITEM),
        column("b", USER),
        column("c", ITEM % 5),
        column("clicked", USER % 2),
        column("price", ITEM),
    ]
    item = item_key(columns)
    assert item.column.name == "a"
    assert "it could be a or b: give the right one" in item.doubt
    assert item_key([column("clicked", USER % 2)]) is None
