"""The estimate of memory, against what a built model takes."""

import types

import pytest

from models.distributed.distribution import Distribution
from models.training import memory
from preprocessing.errors import UserError
from tests.helpers import small_models

FLOAT = 4


def _data(requests=100, candidates=300):
    splits = {"train": {"requests": requests, "candidates": candidates}}
    return types.SimpleNamespace(
        schema=small_models.schema(),
        encoders={
            name: types.SimpleNamespace(cardinality=rows)
            for name, rows in small_models.CARDINALITIES.items()
        },
        manifest={"splits": splits},
    )


def _estimate(model="din", ssl="none", *settings):
    run = small_models.config(model, ssl, *settings)
    return memory.estimate(run, _data(), Distribution("one_device"))


@pytest.fixture
def tracing(monkeypatch):
    """Free memory of which every training takes a large part."""
    monkeypatch.setattr(memory, "available", lambda: 1 << 20)


@pytest.mark.parametrize(
    ("model", "ssl", "settings"),
    [
        ("din", "miss", ("train.pretrain_epochs=1", "train.embedding_optimizer=adagrad")),
        ("dmr", "none", ('model.compressed_features=["item_id"]',)),
    ],
    ids=["pretraining", "table-of-backbone"],
)
def test_weights_and_slots_are_counted_exactly(monkeypatch, tracing, model, ssl, settings):
    monkeypatch.setattr(memory, "_FEW_ROWS", 10)
    built = small_models.model(small_models.config(model, ssl, *settings))
    built.build_optimizers()
    found = _estimate(model, ssl, *settings)
    assert found.traced

    def size(variables):
        return sum(v.shape.num_elements() * v.dtype.size for v in variables if v.shape.rank)

    tables = [*built.embedder.table_weights(), *built.backbone.tables]
    assert found.tables == size(tables)
    optimizers = [built.optimizer, built.embedding_optimizer]
    if ssl != "none":
        optimizers += [built.ssl_optimizer, built.ssl_embedding_optimizer]
    assert found.slots == sum(size(optimizer.variables) for optimizer in optimizers[1::2])
    dense = size(built.weights) - size(tables) + sum(size(o.variables) for o in optimizers[::2])
    assert found.dense == pytest.approx(dense, abs=100)  # and scalars


def test_optimisers_and_compression_shrink_it():
    plain = _estimate()
    assert plain.slots == 2 * plain.tables
    adagrad = _estimate("din", "none", "train.embedding_optimizer=adagrad")
    assert adagrad.slots == adagrad.tables
    compressed = _estimate(
        "din", "none", 'model.compressed_features=["item_id"]', "model.compression=10"
    )
    saved = small_models.CARDINALITIES["item_id"] - 3 - 10
    assert plain.tables - compressed.tables == saved * 8 * FLOAT


def test_steps_of_self_supervision_have_slots_of_their_own():
    """Of the tables of the history's features; whether the estimate is traced or a bound."""
    shared = (
        sum(small_models.CARDINALITIES[name] for name in ("item_id", "category_id")) * 8 * FLOAT
    )
    plain = _estimate("din", "miss", "train.joint=true", "train.ssl_steps=0")
    assert plain.slots == _estimate().slots
    assert _estimate("din", "miss").slots == plain.slots + 2 * shared


@pytest.mark.slow
def test_activations_are_those_of_the_larger_step(tracing):
    pairs = "ssl.pairs_per_filter=50"
    both = "train.joint=true", "train.ssl_steps=0"
    main, apart, summed = (
        _estimate(),
        _estimate("din", "miss", pairs),
        _estimate("din", "miss", pairs, *both),
    )
    assert main.activations < apart.activations < summed.activations
    assert _estimate("din", "miss", "ssl.widths=1", "ssl.heights=0").activations == main.activations


def test_activations_follow_the_batch(tracing):
    small, large = (_estimate("din", "none", f"train.batch_size={size}") for size in (64, 256))
    assert large.activations == pytest.approx(4 * small.activations, rel=0.05)
    # At least what attention of DIN sees: four item vectors for each candidate and event.
    assert large.activations > 256 * 3 * 12 * 4 * 16 * FLOAT
    assert (large.tables, large.dense) == (small.tables, small.dense)


@pytest.mark.parametrize("model", ["din", "deminet", "dmin", "xdeepfm", "autoint"])
@pytest.mark.slow
def test_the_bound_is_one_and_not_far_off(monkeypatch, model):
    bound = _estimate(model)
    assert not bound.traced
    monkeypatch.setattr(memory, "available", lambda: 1 << 20)
    traced = _estimate(model)
    assert traced.activations < bound.activations < 60 * traced.activations
    assert (traced.tables, traced.slots) == (bound.tables, bound.slots)
    assert str(bound).startswith("memory: up to ")


def test_replicas_have_a_copy_each():
    found = _estimate()._replace(copies=2)
    assert found.total == 2 * (found.tables + found.slots + found.dense + found.activations)
    assert str(found).endswith("on each of 2 replicas")


def test_what_does_not_fit_is_refused(monkeypatch):
    needed = _estimate()
    alone = Distribution("one_device")
    monkeypatch.setattr(memory, "available", lambda: needed.total)
    memory.require_room(needed, alone, tables_on_cpu=False)
    monkeypatch.setattr(memory, "available", lambda: needed.total - 1)
    with pytest.raises(UserError, match="of free memory, found memory: .* tables") as error:
        memory.require_room(needed, alone, tables_on_cpu=False)
    assert "compressed_features" in str(error.value)


def test_free_memory_is_that_of_the_machine_or_of_its_container(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    machine = memory.available()
    assert 1 << 20 < machine < 1 << 50
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("900000\n")
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 300000\n")
    assert memory._free_in_containers() == []
    (tmp_path / "memory.max").write_text("1000000\n")
    assert memory._free_in_containers() == [400000]
    assert memory.available() == 400000


@pytest.mark.parametrize(
    ("count", "text"), [(3 << 20, "3.0 MiB"), (1 << 29, "0.50 GiB"), (5 << 30, "5.00 GiB")]
)
def test_sizes_in_words(count, text):
    assert text in str(memory.MemoryEstimate(count, 0, 0, 0))
