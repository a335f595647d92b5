import re

import pytest

from serving.tfserving import metrics
from serving.tfserving.metrics import Metrics
from serving.tfserving.status import Code


def series(page, family):
    """{text between braces: value} of a family's lines."""
    pattern = re.compile(rf":tensorflow:serving:{family}\{{(.*)\}} (\S+)")
    return {
        match[1]: float(match[2]) for match in map(pattern.fullmatch, page.split("\n")) if match
    }


@pytest.fixture
def counted():
    return Metrics()


def test_M2_families_are_declared_before_anything_happened(counted):
    lines = counted.page().splitlines()
    assert "# TYPE :tensorflow:serving:request_count counter" in lines
    assert "# TYPE :tensorflow:serving:request_latency histogram" in lines
    assert all(re.fullmatch(r"# TYPE [A-Za-z0-9_:]+ (counter|histogram)", line) for line in lines)
    assert len(lines) == 7


def test_M2_values_of_labels_are_escaped(counted):
    counted.count_request('a"b\\c\nd', Code.OK)
    assert series(counted.page(), "request_count") == {
        r'model_name="a\"b\\c\nd",status="OK"': 1,
    }


def test_M3_counts_by_model_and_status(counted):
    for code in (Code.OK, Code.OK, Code.NOT_FOUND):
        counted.count_request("m", code)
    counted.warmup("/m/1", Code.OK, 5.0, 3)
    page = counted.page()
    assert series(page, "request_count") == {
        'model_name="m",status="OK"': 2,
        'model_name="m",status="NOT_FOUND"': 1,
    }
    assert series(page, "model_warmup_records_read") == {'model_path="/m/1",status="OK"': 3}
    assert series(page, "model_warmup_latency_count") == {'model_path="/m/1",status="OK"': 1}


def test_M4_latencies_are_cumulative_and_sum_up(counted):
    for microseconds in (10.0, 10.1, 18.0, 1e12):
        counted.observe_latency("m", "predict", "REST", microseconds)
    page = counted.page()
    labels = 'model_name="m",API="predict",entrypoint="REST"'
    buckets = series(page, "request_latency_bucket")
    # A value at a bound is below it.
    assert buckets[f'{labels},le="10"'] == 1
    assert buckets[f'{labels},le="18"'] == 3
    assert buckets[f'{labels},le="32.4"'] == 3
    assert buckets[f'{labels},le="+Inf"'] == 4
    assert len(buckets) == 34
    assert list(buckets.values()) == sorted(buckets.values())
    assert series(page, "request_latency_sum") == {labels: 1e12 + 38.1}
    assert series(page, "request_latency_count") == {labels: 4}


def test_M4_bounds_are_printed_with_six_digits(counted):
    counted.observe_runtime("m", "Predict", 1.0)
    bounds = re.findall(r'le="([^"]*)"', counted.page())
    assert bounds == [*(f"{10 * 1.8**k:.6g}" for k in range(33)), "+Inf"]


def test_M4_examples_are_counted_in_powers_of_two(counted):
    counted.count_examples("m", 3)
    counted.count_examples("m", 200)
    page = counted.page()
    assert series(page, "request_example_count_total") == {'model="m"': 203}
    buckets = series(page, "request_example_counts_bucket")
    bounds = [f"{2**k}" for k in range(15)] + ["+Inf"]
    assert list(buckets) == [f'model="m",le="{bound}"' for bound in bounds]
    assert [buckets[f'model="m",le="{bound}"'] for bound in ("2", "4", "128", "256")] == [
        *(0, 1, 1, 2)
    ]


def test_names_that_clients_make_up_do_not_fill_the_memory(counted, monkeypatch):
    monkeypatch.setattr(metrics, "_MAX_SERIES", 3)
    for i in range(10):
        counted.count_request(f"m{i}", Code.NOT_FOUND)
    counted.count_request("m0", Code.NOT_FOUND)
    counts = series(counted.page(), "request_count")
    assert len(counts) == 4
    assert counts['model_name="m0",status="NOT_FOUND"'] == 2
    assert counts['model_name="",status="NOT_FOUND"'] == 7
