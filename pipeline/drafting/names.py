"""What the name of a column hints at: words of users, items, times, outcomes, requests, numbers."""

import re
from collections.abc import Set


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


USER = _words(
    "user uid usr member customer client visitor reviewer account viewer subscriber buyer shopper "
    "player listener reader guest patron person consumer learner student passenger"
)
ITEM = _words(
    "item iid product movie asin sku article book song track video ad adgroup advert goods good "
    "isbn news listing film game creative document doc post recipe course hotel restaurant "
    "business show artist offer"
)
TIME = _words("ts time timestamp date datetime dt at t epoch unix utc event when")
_TIME_MENTIONS = TIME - {"event"} | frozenset({"day", "created", "updated"})
LABELS = (
    *("label", "target", "y"),
    *("click", "clicked", "clk"),
    *("rating", "star", "score", "overall", "grade", "rate"),
    *("conversion", "converted", "purchase", "purchased", "buy", "bought", "like", "liked"),
    *("installed", "watched", "response"),
)
"""Words of outcomes; of two that a log has, the earlier one is taken for the label."""
OUTCOME = frozenset(LABELS) | {"dwell", "watch", "play", "playtime", "feedback"}
REQUEST = _words("request req impression session sess query search slate auction visit basket")
BEHAVIOUR = _words("behavior behaviour action event activity interaction")
NUMBER = _words(
    "age price cost amount count num qty quantity duration length size weight height width "
    "year salary income distance total sum avg mean score vote discount balance revenue"
)
ID = _words("id key no nr number code hash uuid guid")
CODE = ID | _words(
    "category cat cate class type kind brand shop store seller group level segment zip postcode"
)

_TOKEN = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_A-Za-z]+")
_WHOLE_WORDS = USER | ITEM | REQUEST


def tokens(name: str) -> list[str]:
    """The words of a name in lower case: userId, USER_ID and userid are user, id."""
    words = []
    for token in map(str.lower, _TOKEN.findall(name)):
        stem = token.removesuffix("id")
        words += [stem, "id"] if stem != token and stem in _WHOLE_WORDS else [token]
    return words


def mentions(name: str, words: Set[str]) -> bool:
    """Whether a name has one of the words, in singular or plural."""
    return any(_is_one_of(token, words) for token in tokens(name))


def mentions_time(name: str) -> bool:
    """Whether a name has a word of times."""
    return mentions(name, _TIME_MENTIONS)


def fit(name: str, words: Set[str]) -> int:
    """How well a name says that a column holds the ids of a kind of thing.

    2: it has nothing but the words and a word for ids (user, userId); 1: it has both and more
    (anonymous_user_id); 0: it does not say so (user, but user_age is 0).
    """
    name_tokens = tokens(name)
    if not mentions(name, words):
        return 0
    if all(_is_one_of(token, words | ID) for token in name_tokens):
        return 2
    return int(has_id(name))


def has_id(name: str) -> bool:
    """Whether a name has a word for ids."""
    return mentions(name, ID)


def _is_one_of(token: str, words: Set[str]) -> bool:
    return token in words or (token.endswith("s") and token[:-1] in words)
