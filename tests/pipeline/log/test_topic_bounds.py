"""What a build reads of a topic: names, the offsets since the base, and what is refused."""

import hypothesis
import hypothesis.strategies as st
import pytest

from pipeline.log.topics.bounds import Held, as_read, unread
from pipeline.log.topics.topic import Topic
from preprocessing.errors import UserError

TOPIC = Topic("broker:9092", "clicks", None, "id1")


@pytest.mark.parametrize(
    "url",
    ["kafka://h:9092/clicks", "kafka://h:1,i:2/a.b-c_D", "kafka://[::1]:9092/x", "kafka://1.2.3.4:5/x"],
)  # fmt: skip
def test_a_url_names_a_topic(url):
    topic = Topic.parse(f" {url} ", "client.properties")
    assert topic.url == url
    assert topic.config == "client.properties"


@pytest.mark.parametrize(
    "url",
    [
        *("kafka://h/clicks", "kafka://h:9092", "kafka://h:9092/", "kafka://h:9092/a/b"),
        *("kafka://h:9092/clicks,log.csv", "log.csv,kafka://h:9092/clicks", "kafka://h:x/clicks"),
        f"kafka://h:9092/{'x' * 250}",
    ],
)
def test_other_urls_are_refused(url):
    with pytest.raises(
        UserError, match=r"expected kafka://HOST:PORT/TOPIC, found .* Fix: name one"
    ):
        Topic.parse(url)


def test_a_password_in_a_url_is_not_shown():
    with pytest.raises(UserError, match="--kafka_config") as caught:
        Topic.parse("kafka://me:s3cret@h:9092/clicks")
    assert "s3cret" not in str(caught.value)


def _bounds(offsets, before=None, lost=0, topic=TOPIC):
    parts = unread(Held(topic, offsets), before, lost)
    assert [part.partition for part in parts] == list(range(len(offsets)))
    return [(part.begin, part.end) for part in parts]


BEFORE = {"id": "id1", "next": [10, 4]}


def test_a_first_build_reads_all_that_is_there():
    assert _bounds([(3, 10), (0, 4), (5, 5)]) == [(3, 10), (0, 4), (5, 5)]


def test_a_build_on_a_base_goes_on_where_it_ended_and_reads_new_partitions_whole():
    assert _bounds([(3, 12), (0, 4)], BEFORE) == [(10, 12), (4, 4)]
    assert _bounds([(10, 12), (4, 9), (2, 5)], BEFORE) == [(10, 12), (4, 9), (2, 5)]


def test_deleted_messages_are_counted_and_refused():
    with pytest.raises(
        UserError,
        match=r"every message of kafka://broker:9092/clicks since the base, found 5 deleted that "
        r"were never read \(partition 0: offsets 10 to 12; partition 1: offsets 4 to 5\)\. Fix: "
        r"build more often than the topic deletes; .* say --kafka_lost=5\.",
    ):
        _bounds([(13, 20), (6, 9)], BEFORE)
    with pytest.raises(UserError, match=r"found 5 deleted .* and --kafka_lost=4"):
        _bounds([(13, 20), (6, 9)], BEFORE, lost=4)
    assert _bounds([(13, 20), (6, 9)], BEFORE, lost=5) == [(13, 20), (6, 9)]
    with pytest.raises(UserError, match="--kafka_lost=5: expected messages .* to be gone, found"):
        _bounds([(0, 20), (0, 9)], BEFORE, lost=5)


@pytest.mark.parametrize(
    ("offsets", "identity", "found"),
    [
        ([(0, 9), (0, 4)], "id1", "found 9: the topic was made anew"),
        ([(0, 90)], "id1", "at least 2 partitions .*, found 1: the topic was made anew"),
        ([(0, 90), (0, 90)], "id2", "with the id id1, .*, found id2 at broker:9092: the topic was"),
    ],
)
def test_a_topic_that_was_made_anew_is_refused(offsets, identity, found):
    with pytest.raises(UserError, match=f"{found}.* Fix: begin anew: build from the whole topic"):
        _bounds(offsets, BEFORE, topic=Topic("broker:9092", "clicks", None, identity))


def test_an_unknown_identity_is_no_other_one():
    topic = Topic("broker:9092", "clicks")
    assert _bounds([(0, 11), (0, 4)], BEFORE, topic=topic) == [(10, 11), (4, 4)]
    assert _bounds([(0, 11), (0, 4)], BEFORE | {"id": None}) == [(10, 11), (4, 4)]


@hypothesis.given(
    st.lists(st.lists(st.integers(0, 5), min_size=3, max_size=3), min_size=1, max_size=6),
    st.lists(st.integers(0, 3), min_size=6, max_size=6),
)
def test_days_read_every_offset_once(growths, deleted):
    """Partitions grow and are added; what was read may be deleted."""
    ends, read = [0], [[] for _ in range(6)]
    before = None
    for day, growth in enumerate(growths):
        ends = [*ends, 0][: day + 1]
        ends = [end + growth[number % 3] for number, end in enumerate(ends)]
        firsts = [max(0, len(read[number]) - deleted[number]) for number in range(len(ends))]
        parts = unread(Held(TOPIC, list(zip(firsts, ends, strict=True))), before)
        for part in parts:
            read[part.partition] += range(part.begin, part.end)
        before = as_read(parts)
    for number, end in enumerate(ends):
        assert read[number] == list(range(end))
