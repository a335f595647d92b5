"""pipeline.drafting.several: columns with several values in a row, and what is between them."""

import pytest

from pipeline.drafting import exclusions, several
from tests.helpers.foreign_logs import column


def test_commas_separate_values_only_if_their_parts_come_back():
    genres = ["a, b", "b, c", "a, c", "c", "a, b, c", "b"]
    places = ["Paris, France", "London, UK", "Rome, Italy", "Oslo, Norway", "Berlin"]
    assert several.separator_of(column("a", genres)) == ","
    assert several.separator_of(column("a", [text.replace(",", ";") for text in genres])) == ";"
    assert several.separator_of(column("a", places)) is None
    assert several.separator_of(column("a", ["1,5", "1,7", "5,1", "7,1", "5,5"])) is None


def test_texts_between_bars_are_taken_apart_into_sets():
    many = several.taken_apart(column("a", ["x|y", "y|x|x", None, "z"]))
    assert many.is_many
    assert many.separator == "|"
    assert many.values.to_pylist() == ["x\x1fy", "z"]
    assert many.codes.tolist() == [0, 0, -1, 1]
    assert several.many_of(many).max == 2
    assert several.single_values(many).counts.tolist() == [2, 2, 1]


def test_a_column_of_single_values_stays():
    single = column("a", ["x", "y", None])
    assert several.taken_apart(single) is single


@pytest.mark.parametrize("words", [2, 30])
def test_as_many_values_as_in_the_sample_up_to_twenty(words):
    texts = ["|".join(f"w{i}" for i in range(words)), "w1"]
    assert several.many_of(several.taken_apart(column("a", texts))).max == min(words, 20)


def test_sentences_are_no_values_between_commas():
    text = "a long story of a man and his dog"
    prose = several.taken_apart(
        column("a", [f"{text}, {text}s", f"{text}s, {text}", f"{text}, {text}, {text}", f"{text}s"])
    )
    assert prose.separator == ","
    assert exclusions.prose(prose) == "free text"
    genres = several.taken_apart(column("a", ["Drama|Comedy", "Drama"]))
    assert exclusions.prose(genres) == ""
