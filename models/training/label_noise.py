"""Fewer and noisier training labels: the stress tests of MISS (Guo et al., 2022, tables IX, X).

Shapes: B requests, N candidates, L history length.
"""

from models.config.training import TrainConfig
from models.core.embeddings import Features
from models.keras import tf
from preprocessing.example_keys import LABEL, REQUEST_ID, candidate_key, history_key
from preprocessing.features.feature import PAD_ID
from preprocessing.schema import Schema

_BUCKETS = 1 << 30


def stressed(batches: tf.data.Dataset, schema: Schema, train: TrainConfig) -> tf.data.Dataset:
    """Training batches with a share of samples dropped and of labels flipped, as `train` sets.

    A sample is a candidate with its label. Whether it is kept or flipped depends on the seed, its
    request and its position there alone, so it is the same in every epoch, for every order and size
    of the batches, and for every model.

    Args:
        batches: Batches of `preprocessing.dataset.read`.
        schema: Schema of the data.
        train: Settings of the training, with the rates and the seed.

    Returns:
        Batches of the same shapes. A dropped sample becomes padding, and so does the history of a
        request without samples, unless `train.unlabelled_histories`.
    """
    if train.sampling_rate == 1.0 and train.label_noise == 0.0:
        return batches
    item_key = schema.item_key.name
    candidate, history = candidate_key(item_key), history_key(item_key)

    @tf.autograph.experimental.do_not_convert
    def stress(features: Features) -> dict[str, tf.Tensor]:
        changed = dict(features)
        flipped_BN = _uniform(features, "noise", train.seed) < train.label_noise
        label_BN = tf.where(flipped_BN, 1.0 - features[LABEL], features[LABEL])
        kept_BN = (features[candidate] != PAD_ID) & (
            _uniform(features, "sample", train.seed) < train.sampling_rate
        )
        changed[candidate] = tf.where(kept_BN, features[candidate], PAD_ID)
        changed[LABEL] = tf.where(kept_BN, label_BN, 0.0)
        if not train.unlabelled_histories:
            seen_B1 = tf.reduce_any(kept_BN, axis=1, keepdims=True)
            changed[history] = tf.where(seen_B1, features[history], PAD_ID)
        return changed

    return batches.map(stress)


def _uniform(features: Features, purpose: str, seed: int) -> tf.Tensor:
    """Pseudo-random numbers in [0, 1) for every candidate, [B, N] float64, from SipHash."""
    shape = tf.shape(features[LABEL])
    requests_BN = tf.repeat(features[REQUEST_ID][:, None], shape[1], axis=1)
    places_BN = tf.repeat(tf.as_string(tf.range(shape[1]))[None], shape[0], axis=0)
    names_BN = tf.strings.join([purpose, requests_BN, places_BN], "\n")
    hashes_BN = tf.strings.to_hash_bucket_strong(names_BN, _BUCKETS, [seed, 0])
    return tf.cast(hashes_BN, tf.float64) / _BUCKETS
