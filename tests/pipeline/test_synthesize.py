import dataclasses
import json
import subprocess
import sys

import numpy as np
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet
import pytest
from sklearn import metrics

from pipeline import synthesize
from pipeline.synthetic import truth as synthetic_truth
from preprocessing.errors import UserError
from preprocessing.schema_inference import infer_schema

READERS = {
    ".csv": pyarrow.csv.read_csv,
    ".parquet": pyarrow.parquet.read_table,
    ".jsonl": pyarrow.json.read_json,
}
SMALL = synthetic_truth.SynthesizeArguments(users=300, items=120, interests=4, events_per_user=12)


@pytest.fixture(scope="module")
def log():
    return synthesize.synthesize(synthetic_truth.SynthesizeArguments(users=4000, seed=5))


def by_user(log):
    """Item ids of each user, oldest first."""
    items = [f"i{item}" for item in log.item_E]
    splits = np.flatnonzero(np.diff(log.user_E)) + 1
    starts, ends = [0, *splits], [*splits, len(items)]
    return [items[start:end] for start, end in zip(starts, ends, strict=True)]


def next_probability(scores_BN, catalogue_size, histories):
    """Undoes score = log p - log((1 - p) / (M - n - 1))."""
    length_B1 = np.array([[len(history)] for history in histories])
    odds_BN = np.exp(scores_BN) / (catalogue_size - length_B1 - 1)
    return odds_BN / (1 + odds_BN)


def draw_negatives(log, sequences, count, seed=0):
    """[B, count] items that the user does not have."""
    rng = np.random.default_rng(seed)
    catalogue = np.array([f"i{item}" for item in range(log.truth.arguments.items)])
    return [rng.choice(np.setdiff1d(catalogue, sequence), count).tolist() for sequence in sequences]


@pytest.mark.parametrize("extension", READERS)
def test_same_seed_gives_the_same_bytes_and_another_seed_others(extension, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        drawn = synthesize.synthesize(dataclasses.replace(SMALL, seed=seed))
        synthesize.write(drawn, tmp_path / f"{name}{extension}")
    first, same, other = (tmp_path / f"{name}{extension}" for name in "abc")
    assert first.read_bytes() == same.read_bytes() != other.read_bytes()
    assert len(list(tmp_path.iterdir())) == 6, "three logs, three truths, nothing partial"
    assert (tmp_path / f"a{extension}.truth.json").read_bytes() == (
        tmp_path / f"b{extension}.truth.json"
    ).read_bytes()


@pytest.mark.parametrize("extension", READERS)
def test_every_format_holds_the_drawn_events(extension, tmp_path):
    drawn = synthesize.synthesize(SMALL)
    path = tmp_path / "deep" / f"log{extension}"
    synthesize.write(drawn, path)
    table = READERS[extension](path)
    assert table.equals(drawn.table())
    assert [f.name for f in infer_schema(table.column_names).features] == table.column_names
    frame = table.to_pandas()
    assert frame["timestamp"].is_monotonic_increasing
    sequences = frame.groupby("user_id")["item_id"].apply(list).to_dict()
    assert sequences == {f"u{user}": items for user, items in enumerate(by_user(drawn))}


def test_a_user_has_distinct_items_and_times_and_a_length_within_bounds():
    drawn = synthesize.synthesize(SMALL)
    frame = drawn.table().to_pandas()
    assert not frame.duplicated(["user_id", "item_id"]).any()
    assert not frame.duplicated(["user_id", "timestamp"]).any()
    lengths = frame.groupby("user_id").size()
    assert len(lengths) == SMALL.users
    assert (lengths.min(), lengths.max()) == (6, 18)


def test_an_item_has_one_category_and_a_category_one_interest():
    truth = synthesize.synthesize(SMALL).truth
    pairs = set(zip(truth.category_M.tolist(), truth.interest_M.tolist(), strict=True))
    assert len(pairs) == len(set(truth.category_M)) == 16
    np.testing.assert_allclose(np.bincount(truth.interest_M, truth.weight_M), 1)
    np.testing.assert_array_equal(np.bincount(truth.interest_M), 30)


def test_the_number_of_an_item_or_category_says_nothing():
    args = dataclasses.replace(SMALL, items=4000, interests=20)
    truth = synthesize.synthesize(args).truth
    category_interest = np.full(80, -1)
    category_interest[truth.category_M] = truth.interest_M
    for interest in (truth.interest_M, category_interest):
        for step in (1, args.categories_per_interest, args.interests):
            repeats = interest[step:] == interest[:-step]
            assert repeats.mean() < 1 / 20 + 4 * np.sqrt(1 / 20 / len(repeats))
    assert abs(np.corrcoef(np.arange(4000), truth.weight_M)[0, 1]) < 4 / np.sqrt(4000)


def test_interests_are_drawn_from_theta_independently_of_the_previous_event(log):
    G = log.truth.arguments.interests
    interest_E = log.truth.interest_M[log.item_E]
    count_UG = np.bincount(log.user_E * G + interest_E, minlength=log.theta_UG.size)
    length_U1 = np.bincount(log.user_E)[:, None]
    expected_UG = length_U1 * log.theta_UG
    large_UG = (expected_UG > 2) & (length_U1 - expected_UG > 2)
    z = (count_UG.reshape(-1, G) - expected_UG) / np.sqrt(expected_UG * (1 - log.theta_UG))
    assert abs(z[large_UG].mean()) < 4 / np.sqrt(large_UG.sum())
    assert z[large_UG].std() == pytest.approx(1, abs=0.03)
    # The chance that two events in a row share an interest is the same as for any two events.
    same_user_E = log.user_E[1:] == log.user_E[:-1]
    repeats = (interest_E[1:] == interest_E[:-1])[same_user_E]
    expected = (log.theta_UG**2).sum(axis=1)[log.user_E[1:][same_user_E]]
    assert repeats.mean() == pytest.approx(expected.mean(), abs=4 * 0.5 / np.sqrt(len(repeats)))


def test_log_odds_equal_those_of_a_simulation():
    """Two interests, six items: sequences of three by an exponential race, negatives by choice."""
    truth = synthetic_truth.Truth(
        arguments=synthetic_truth.SynthesizeArguments(items=6, interests=2, concentration=0.4),
        interest_M=np.array([0, 1, 0, 1, 0, 1]),
        category_M=np.zeros(6, np.int64),
        weight_M=np.array([0.5, 0.6, 0.3, 0.3, 0.2, 0.1]),
    )
    rng = np.random.default_rng(0)
    users = 600_000
    z = (rng.random((users, 3)) > rng.beta(0.4, 0.4, (users, 1))).astype(int)
    # Ordering items by exponential times of rate w draws them one by one without replacement.
    race = rng.standard_exponential((users, 6)) / truth.weight_M
    ranked = np.stack([np.argsort(race[:, g::2], axis=1) * 2 + g for g in (0, 1)], axis=1)
    sequence = np.empty((users, 3), int)
    for t in range(3):
        nth_of_its_interest = (z[:, :t] == z[:, t : t + 1]).sum(axis=1)
        sequence[:, t] = ranked[np.arange(users), z[:, t], nth_of_its_interest]
    free = np.ones((users, 6), bool)
    np.put_along_axis(free, sequence, False, axis=1)
    negative = np.argmax(rng.random((users, 6)) * free, axis=1)
    checked = 0
    for history in ([], [0], [3], [0, 2], [1, 0], [3, 1]):
        n = len(history)
        match = (sequence[:, :n] == history).all(axis=1)
        positive = sequence[match, n]
        scores = synthetic_truth.oracle_scores(
            truth, [[f"i{item}" for item in history]], [[f"i{item}" for item in range(6)]]
        )[0]
        np.testing.assert_array_equal(np.isneginf(scores), np.isin(range(6), history))
        probability = next_probability(scores[None], 6, [history])[0]
        assert probability.sum() == pytest.approx(1)
        frequency = np.bincount(positive, minlength=6) / match.sum()
        error = np.sqrt(probability / match.sum()) + 1e-9
        assert (np.abs(frequency - probability) < 4 * error).all()
        if n == 2:  # the negative avoids the whole sequence: the request is the last event
            wins = np.bincount(positive, minlength=6).astype(float)
            losses = np.bincount(negative[match], minlength=6).astype(float)
            for item in np.flatnonzero(wins):
                error = np.sqrt(1 / wins[item] + 1 / losses[item])
                assert abs(np.log(wins[item] / losses[item]) - scores[item]) < 4 * error
                checked += 1
    assert checked == 12


@pytest.mark.parametrize(
    "args",
    [
        synthetic_truth.SynthesizeArguments(users=3000, seed=2),
        # Users come close to running out of the items of an interest.
        synthetic_truth.SynthesizeArguments(
            users=3000, items=66, interests=3, events_per_user=15, popularity_exponent=1.5, seed=3
        ),
    ],
)
def test_the_closed_form_is_calibrated_on_generated_logs(args):
    drawn = synthesize.synthesize(args)
    sequences = by_user(drawn)
    histories = [sequence[:-1] for sequence in sequences]
    catalogue = [f"i{item}" for item in range(args.items)]
    scores_BM = synthetic_truth.oracle_scores(drawn.truth, histories, [catalogue] * len(histories))
    p_BM = next_probability(scores_BM, args.items, histories)
    np.testing.assert_allclose(p_BM.sum(axis=1), 1)
    hit_BM = np.array([np.isin(catalogue, sequence[-1]) for sequence in sequences])
    assert np.isfinite(scores_BM[hit_BM]).all()
    edges = np.quantile(p_BM[p_BM > 0], np.linspace(0, 1, 12)[1:-1])
    edges = np.append(edges, np.quantile(p_BM, [0.99, 0.999]))
    popular_M = drawn.truth.weight_M > np.median(drawn.truth.weight_M)
    for popular in (False, True):
        p, hit = p_BM[:, popular_M == popular], hit_BM[:, popular_M == popular]
        group = np.digitize(p, edges)
        predicted = np.bincount(group.ravel(), p.ravel(), minlength=13)
        variance = np.bincount(group.ravel(), (p * (1 - p)).ravel(), minlength=13)
        seen = np.bincount(group.ravel(), hit.ravel(), minlength=13)
        assert (np.abs(seen - predicted) <= 4 * np.sqrt(variance) + 1).all()


def test_best_auc_is_that_of_the_oracle_on_raw_ids(log):
    auc, error = synthesize.best_auc(log)
    assert 0.85 < auc < 0.95
    assert error < 0.003
    sequences = by_user(log)
    candidates = [
        [sequence[-1], *negatives]
        for sequence, negatives in zip(sequences, draw_negatives(log, sequences, 20), strict=True)
    ]
    scores = synthetic_truth.oracle_scores(log.truth, [s[:-1] for s in sequences], candidates)
    labels = np.zeros(scores.shape)
    labels[:, 0] = 1
    assert metrics.roc_auc_score(labels.ravel(), scores.ravel()) == pytest.approx(auc, abs=0.003)


def test_the_standard_error_is_the_spread_over_draws_of_dependent_rows():
    rng = np.random.default_rng(0)
    results = []
    for _ in range(400):
        row_B1 = 2 * rng.normal(size=(100, 1))
        scores_BN = np.round(row_B1 + rng.normal(size=(100, 6)), 1)
        scores_BN[:, 0] += 1
        results.append(synthetic_truth.pooled_auc(scores_BN[:, 0], scores_BN[:, 1:]))
    labels_BN = np.zeros(scores_BN.shape)
    labels_BN[:, 0] = 1
    assert results[-1][0] == pytest.approx(
        metrics.roc_auc_score(labels_BN.ravel(), scores_BN.ravel())
    )
    aucs, errors = zip(*results, strict=True)
    assert np.std(aucs, ddof=1) == pytest.approx(np.mean(errors), rel=0.15)


def test_no_other_scorer_of_histories_beats_the_oracle(log):
    truth, args = log.truth, log.truth.arguments
    sequences = by_user(log)
    histories = [sequence[:-1] for sequence in sequences]
    candidates = [
        [sequence[-1], *negatives]
        for sequence, negatives in zip(sequences, draw_negatives(log, sequences, 20), strict=True)
    ]
    item_BN = np.array([[int(item[1:]) for item in row] for row in candidates])
    count_BG = np.zeros((len(histories), args.interests))
    for b, history in enumerate(histories):
        np.add.at(count_BG[b], truth.interest_M[[int(item[1:]) for item in history]], 1)
    count_BN = np.take_along_axis(count_BG, truth.interest_M[item_BN], axis=1)
    popularity_BN = truth.weight_M[item_BN]
    theta_BN = np.take_along_axis(log.theta_UG, truth.interest_M[item_BN], axis=1)

    def auc(scores_BN):
        labels_BN = np.zeros(item_BN.shape)
        labels_BN[:, 0] = 1
        return metrics.roc_auc_score(labels_BN.ravel(), scores_BN.ravel())

    def oracle(**changes):
        changed = dataclasses.replace(truth, arguments=dataclasses.replace(args, **changes))
        return synthetic_truth.oracle_scores(changed, histories, candidates)

    best = auc(oracle())
    rng = np.random.default_rng(0)
    assert auc(popularity_BN) < best - 0.2
    assert auc(count_BN) < best - 0.005
    assert auc(oracle() + rng.normal(size=item_BN.shape)) < best - 0.005
    assert auc(oracle(concentration=10.0)) < best - 0.005
    assert auc(popularity_BN * (count_BN + args.concentration)) < best + 0.001
    # Knowing theta, which the history only hints at, is worth more: the bound is not vacuous.
    assert auc(popularity_BN * theta_BN) > best + 0.005


def test_truth_survives_the_file(tmp_path):
    drawn = synthesize.synthesize(SMALL)
    truth = synthetic_truth.Truth.load(synthesize.write(drawn, tmp_path / "log.csv"))
    assert truth.arguments == SMALL
    np.testing.assert_array_equal(truth.category_M, drawn.truth.category_M)
    histories, candidates = [["i3", "i7"], []], [["i1", "i2"], ["i3", "i4"]]
    np.testing.assert_array_equal(
        synthetic_truth.oracle_scores(truth, histories, candidates),
        synthetic_truth.oracle_scores(drawn.truth, histories, candidates),
    )


def test_an_item_outside_the_catalogue_is_an_error():
    with pytest.raises(KeyError, match="i120"):
        synthetic_truth.oracle_scores(synthesize.synthesize(SMALL).truth, [["i1"]], [["i120"]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"users": 1}, "Expected --users >= 2, found 1"),
        ({"items": 71}, "--items: expected at least 72 .*found 71.*Fix: raise --items"),
    ],
)
def test_arguments_that_cannot_be_drawn_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        synthesize.synthesize(dataclasses.replace(SMALL, **changes))


def test_paths_that_cannot_be_written_are_refused(tmp_path):
    drawn = synthesize.synthesize(SMALL)
    with pytest.raises(UserError, match=r"ending in \.csv, \.parquet, \.jsonl, found .*log\.txt"):
        synthesize.write(drawn, tmp_path / "log.txt")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="a path that can be written"):
        synthesize.write(drawn, tmp_path / "file" / "log.csv")


def test_command_line(tmp_path):
    def run(*flags):
        command = [sys.executable, "-m", "pipeline.synthesize", *flags]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    path = tmp_path / "log.jsonl"
    done = run(f"--output={path}", "--users=300", "--items=150", "--interests=5", "--seed=4")
    assert done.returncode == 0, done.stderr
    drawn = synthesize.synthesize(
        synthetic_truth.SynthesizeArguments(users=300, items=150, interests=5, seed=4)
    )
    assert pyarrow.json.read_json(path).equals(drawn.table())
    assert json.loads((tmp_path / "log.jsonl.truth.json").read_text())["arguments"]["users"] == 300
    auc, error = synthesize.best_auc(drawn)
    assert done.stdout.splitlines() == [
        f"300 users, {len(drawn.item_E):,} events, 150 of 150 items",
        f"best reachable AUC (leave-last-out, 1 uniform negative): {auc:.3f} ± {error:.3f}",
        f"wrote {path} and {path}.truth.json",
    ]
    failed = run(f"--output={tmp_path / 'log.txt'}")
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: --output: expected a path ending in")
    assert failed.stderr.count("\n") == 1
