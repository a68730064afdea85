"""Recipes of the paper with a decoder-only model instead of theirs: shapes, mesh and plan fit."""

import pathlib

import pytest

from promot_jax.cli import gin_config
from promot_jax.experiments import shapes
from promot_jax.models import decoder_sizes
from promot_jax.planning import plan

FOLDER = pathlib.Path(__file__).resolve().parent.parent.parent / "gin"


def build(*names: str):
  return gin_config.build(gin_config.read([str(FOLDER / name) for name in names], []))


def test_every_size_has_a_gin_file_that_builds_it():
  assert not {size for size in decoder_sizes.SIZES if not (FOLDER / f"models/{size}.gin").is_file()}


@pytest.mark.parametrize("size", decoder_sizes.SIZES)
def test_promot_plans_with_a_decoder_only_model(size):
  experiment = build("promot_rte.gin", f"models/{size}.gin")
  published = decoder_sizes.SIZES[size]()
  config = experiment.backbone
  assert (config.width, config.layers, config.eos) == (
    published.width,
    published.layers,
    published.eos,
  )
  assert (config.dropout_rate, config.dtype) == (0.1, "bfloat16")
  mesh = {"data": 1, "model": experiment.mesh.model}
  prompt, model = shapes.stage_plans(experiment, mesh)
  assert prompt.trainable == experiment.method.length * config.width
  assert model.frozen == prompt.trainable


def test_the_plan_names_the_layers_of_a_decoder_only_model():
  text = "\n".join(plan.describe(build("promot_rte.gin", "models/gpt2_large.gin")))
  assert "DecoderLMConfig 36 layers, width 1280, vocabulary 50257, 774.2 M parameters" in text
