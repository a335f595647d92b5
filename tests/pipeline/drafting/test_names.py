"""pipeline.drafting.names: what names hint at, however they are written."""

import pytest

from pipeline.drafting import names


@pytest.mark.parametrize("name", ["user_id", "userId", "USER-ID", "userid", "user id", "UserID"])
def test_a_name_has_the_same_words_in_every_style(name):
    assert names.tokens(name) == ["user", "id"]
    assert names.fit(name, names.USER) == 2


def test_acronyms_and_digits_are_words():
    assert names.tokens("unixReviewTime") == ["unix", "review", "time"]
    assert names.tokens("reviewerID2") == ["reviewer", "id", "2"]


@pytest.mark.parametrize(
    ("name", "fit"),
    [("user", 2), ("users", 2), ("uid", 2), ("anonymous_user_id", 1), ("user_age", 0), ("age", 0)],
)
def test_how_well_a_name_says_user(name, fit):
    assert names.fit(name, names.USER) == fit


def test_words_are_whole():
    assert not names.mentions("padding", names.ITEM)  # it has an "ad"
    assert names.mentions("ad_group", names.ITEM)
    assert names.mentions_time("clicked_at")
    assert not names.mentions_time("event")
