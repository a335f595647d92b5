"""The names of settings that are read from the sources are those that the classes have."""

import dataclasses

import pytest

from models import registry
from models.backbone_api import ModelConfig
from models.config.setting_names import setting_names
from models.config.training import TrainConfig
from models.ops import choices
from models.ops.optimizers import TABLE_OPTIMIZERS


def _names(kind):
    return {field.name for field in dataclasses.fields(kind)}


def _of(section, model="din", ssl=registry.NO_SSL):
    found = [name.partition(".") for name in setting_names(model, ssl)]
    assert len(set(found)) == len(found)
    return {name for one, _, name in found if one == section}


@pytest.mark.parametrize("model", registry.MODELS)
def test_settings_of_a_model(model):
    assert _of("model", model) == _names(registry.load_model_class(model)[0].Config)


@pytest.mark.parametrize("ssl", registry.SSL)
def test_settings_of_a_self_supervision(ssl):
    assert _of("ssl", ssl=ssl) == _names(registry.load_ssl_class(ssl)[0].Config)


def test_settings_of_a_training_and_of_models_that_are_not_ours():
    assert _of("train", "my_package.my_model") == _names(TrainConfig)
    assert _of("model", "my_package.my_model") == _names(ModelConfig)
    assert not _of("ssl", ssl="my_package.my_loss")


def test_choices_are_those_of_the_code():
    assert tuple(TABLE_OPTIMIZERS) == choices.EMBEDDING_OPTIMIZERS
