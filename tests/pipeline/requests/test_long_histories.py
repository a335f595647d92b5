"""Users with too many events are cut before the sort, and nothing that is written shows it."""

import collections

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.log.row_checks import FILE, LINE, TIME
from pipeline.requests import long_histories
from pipeline.requests.long_histories import Gathered
from preprocessing import data_dir
from tests.helpers import days, expiring

MOST = 3


def _log(day, size=90):
    """Events of a day in which two users have most of the events, with ties in time."""
    rng = np.random.default_rng(day)
    return [
        (f"u{user}", f"i{rng.integers(30)}", int(time), f"c{day}", float(day), "p0", "g0|g1", 1.0)
        for user, time in zip(
            np.minimum(rng.geometric(0.4, size), 9),
            100 * day + np.sort(rng.integers(0, 60, size)),
            strict=True,
        )
    ]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), min_size=1, max_size=60),
    st.integers(1, 9),
    st.integers(1, 12),
    st.randoms(use_true_random=False),
)
def test_kept_are_the_most_recent_events_whatever_the_pieces(events, part_size, piece, random):
    rows = [
        {"user": f"u{user}", TIME: time, FILE: row % 2, LINE: row // 2}
        for row, (user, time) in enumerate(events)
    ]
    own = collections.defaultdict(list)
    for row in sorted(rows, key=lambda row: (row[TIME], row[FILE], row[LINE])):
        own[row["user"]].append(row)
    random.shuffle(rows)
    parts = [rows[n : n + part_size] for n in range(0, len(rows), part_size)]
    gathered = Gathered("user", MOST)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_histories, "PIECE_ROWS", piece)
        excess = list(gathered.excess(map(pa.Table.from_pylist, parts)))
    is_cut = len(rows) > piece
    kept = [row for some in own.values() for row in (some[-MOST:] if is_cut else some)]
    assert _keys(gathered.rows.to_pylist()) == _keys(kept)
    older = [row for some in own.values() for row in some[:-MOST] if is_cut]
    assert _keys([row for table in excess for row in table.to_pylist()]) == _keys(older)
    assert all(table.num_rows for table in excess)


def _keys(rows):
    return sorted((row["user"], row[TIME], row[FILE], row[LINE]) for row in rows)


def _content(data, directory):
    """All that a data set consists of but its card."""
    names = [path for path in data.path.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(data.path)): path.read_bytes().replace(str(directory).encode(), b"")
        for path in names
        if not path.name.startswith("data_card") and path.name != data_dir.COMPLETED
    }


@pytest.mark.parametrize(
    "arguments",
    [
        {"protocol": "leave_last_out", "train_prefixes": "all", "max_length": 2},
        {"protocol": "leave_last_out", "max_user_events": 5, "max_length": 7},
        {"protocol": "time_split", "negative_sampling": "available_popularity"},
        {"protocol": "time_split", "min_user_events": 12, "negative_sampling": "available"},
        {"protocol": "time_split", "min_item_events": 3, "core_filter": "fixed_point"},
        {"protocol": "day", "deduplicate": True, "with_events": True},
    ],
)
def test_data_sets_are_the_same_byte_for_byte(tmp_path, monkeypatch, arguments):
    arguments = {"max_user_events": 8, "num_partitions": 2, **arguments}
    contents, accounts = [], []
    for name, piece_rows in (("whole", 1 << 22), ("cut", 7)):
        monkeypatch.setattr(long_histories, "PIECE_ROWS", piece_rows)
        directory = tmp_path / name
        directory.mkdir()
        data = days.build(directory, [(n, _log(n)) for n in range(4)], "data", **arguments)
        contents.append(_content(data, directory))
        accounts.append(data.manifest["conservation"]["filtered"])
    assert accounts[0]["max_user_events"] > 100
    assert contents[0] == contents[1]


def test_a_build_on_a_base_and_what_expires_are_the_same_byte_for_byte(tmp_path, monkeypatch):
    contents = []
    for name, piece_rows in (("whole", 1 << 22), ("cut", 5)):
        monkeypatch.setattr(long_histories, "PIECE_ROWS", piece_rows)
        directory = tmp_path / name
        directory.mkdir()
        sets = expiring.chain(directory, (0, 3, 5, 7), max_length=2, max_user_events=3)
        contents.append([_content(data, directory) for data in sets])
        for content, base in zip(contents[-1][1:], sets[:-1], strict=True):
            fingerprint = base.fingerprint.encode()  # names the directory, as its manifest does
            content["manifest.json"] = content["manifest.json"].replace(fingerprint, b"")
        assert all(data.manifest["conservation"]["filtered"]["max_user_events"] for data in sets)
    assert contents[0] == contents[1]
