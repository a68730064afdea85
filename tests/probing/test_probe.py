"""Probes: pooling, chosen layers, and heads that learn what is there to be learned."""

import numpy as np
import pytest
from flax import nnx

from promot_jax import errors
from promot_jax.checkpoints.store import Store
from promot_jax.methods.prompt import SoftPrompt
from promot_jax.models.head import pooled
from promot_jax.models.scanning import stack_layers
from promot_jax.probing import probe as probe_lib
from promot_jax.probing.probe import Probe
from promot_jax.training import loop
from tiny_models import tiny

TOKENS = np.asarray([[4, 9, 6, 0], [8, 3, 0, 0]], np.int32)


def t5():
  return tiny("t5", encoder_layers=3, decoder_layers=1)


def test_pooling_looks_at_real_tokens_whichever_side_is_padded():
  hidden = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
  mask = np.asarray([[True, True, True, False], [False, False, True, True]])
  found = pooled(hidden, mask)
  for row, real in enumerate(([0, 1, 2], [2, 3])):
    np.testing.assert_allclose(found["first"][row], hidden[row, real[0]])
    np.testing.assert_allclose(found["last"][row], hidden[row, real[-1]])
    np.testing.assert_allclose(found["mean"][row], hidden[row, real].mean(axis=0), atol=1e-6)


def test_features_of_the_last_layer_are_the_encoders_output():
  batch = {"encoder_input_tokens": TOKENS}
  memory, _ = t5().encode(batch)
  found = probe_lib.feature_function(t5(), None)(batch)
  np.testing.assert_allclose(found["last"], np.stack([memory[0, 2], memory[1, 1]]), atol=1e-6)


def test_features_of_an_inner_layer_are_those_before_the_layers_above_and_before_the_norm():
  batch = {"encoder_input_tokens": TOKENS}
  inner = probe_lib.feature_function(t5(), 2)(batch)["first"]
  scanned = probe_lib.feature_function(stack_layers(t5()), 2)(batch)["first"]
  np.testing.assert_allclose(scanned, inner, atol=1e-6)
  cut = tiny("t5", seed=1, encoder_layers=2, decoder_layers=1)
  cut.token_embedder, cut.encoder.relpos_bias = t5().token_embedder, t5().encoder.relpos_bias
  cut.encoder.layers = nnx.List(list(t5().encoder.layers)[:2])
  normed, _ = cut.encode(batch)
  unit = inner / np.sqrt(np.mean(np.square(inner), axis=-1, keepdims=True) + 1e-6)
  np.testing.assert_allclose(unit, normed[:, 0], atol=1e-5)
  with pytest.raises(errors.ConfigError, match="layer is 4, and the encoder has layers 1 to 3"):
    probe_lib.feature_function(t5(), 4)


def test_a_decoder_only_model_is_read_at_its_input_and_prompts_are_no_tokens():
  model = tiny("gpt2", pad=0)
  batch = {"encoder_input_tokens": TOKENS, "decoder_target_tokens": np.ones((2, 1), np.int32)}
  found = probe_lib.feature_function(model, None)(batch)
  np.testing.assert_allclose(found["last"], model.hidden(batch)[:, 0], atol=1e-6)
  prompted = SoftPrompt(length=3).attach(model, nnx.Rngs(1))
  found = probe_lib.feature_function(prompted, None)(batch)
  np.testing.assert_allclose(found["last"], prompted.hidden(batch)[:, 0], atol=1e-6)
  hidden, _ = prompted.encode(batch)
  np.testing.assert_allclose(found["first"], hidden[:, 3], atol=1e-6)


def trained(probe, train, select, folder, *, classes=2):
  """(model, step, validation score) of a probe's stage, and how to standardize features for it."""
  standard = probe_lib.Standard.of(train[0])
  batch = probe_lib.batch_of(standard(train[0]), train[1], rows=len(train[1]) + 3)
  head = probe_lib.FeatureHead(train[0].shape[1], classes, hidden=probe.hidden, seed=0)

  def validate(model):
    right = probe_lib.predict(model, standard(select[0])) == select[1]
    return {"accuracy": 100.0 * float(np.mean(right))}

  result = loop.train_stage(
    probe_lib.stage(probe, "probe", len(train[1]) + 3),
    probe_lib.Classifier(head),
    batches=lambda step: batch,
    store=Store(folder),
    seed=0,
    validate=validate,
  )
  return result, standard


def exclusive_or():
  draw = np.random.default_rng(0)
  features = draw.normal(size=(400, 2)).astype(np.float32) * np.float32([1.0, 50.0])
  linear = (features[:, 0] > 0.2).astype(np.int32)
  return features, linear, ((features[:, 0] > 0) ^ (features[:, 1] > 0)).astype(np.int32)


@pytest.mark.parametrize(
  ("rule", "hidden", "least", "most"),
  [(0, None, 0.9, 1.0), (1, None, 0.0, 0.75), (1, 16, 0.85, 1.0)],
  ids=["linear", "exclusive or, linear head", "exclusive or, hidden layer"],
)
def test_a_linear_head_learns_a_linear_rule_and_a_hidden_layer_exclusive_or(
  tmp_path, rule, hidden, least, most
):
  features, *rules = exclusive_or()  # of unequal scales
  labels = rules[rule]
  probe = Probe(steps=200, learning_rate=0.1, hidden=hidden, eval_period=100)
  result, standard = trained(
    probe, (features[:300], labels[:300]), (features[300:350], labels[300:350]), tmp_path
  )
  right = probe_lib.predict(result.model, standard(features[350:])) == labels[350:]
  assert least <= right.mean() <= most


def test_a_probes_stage_is_the_adamw_that_numpy_computes(tmp_path):
  features, labels, _ = exclusive_or()
  features, labels = features[:40], labels[:40]
  probe = Probe(steps=3, learning_rate=0.1, weight_decay=0.05, eval_period=3)
  result, standard = trained(probe, (features, labels), (features, labels), tmp_path)
  x, wanted = standard(features).astype(np.float64), np.eye(2)[labels]
  values = {"kernel": np.zeros((2, 2)), "bias": np.zeros(2)}
  first = {name: np.zeros_like(value) for name, value in values.items()}
  second = {name: np.zeros_like(value) for name, value in values.items()}
  for step in (1, 2, 3):
    logits = x @ values["kernel"] + values["bias"]
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    slope = (shares - wanted) / len(labels)
    for name, gradient in (("kernel", x.T @ slope), ("bias", slope.sum(axis=0))):
      first[name] = 0.9 * first[name] + 0.1 * gradient
      second[name] = 0.999 * second[name] + 0.001 * gradient**2
      update = first[name] / (1 - 0.9**step) / (np.sqrt(second[name] / (1 - 0.999**step)) + 1e-8)
      values[name] = values[name] - 0.1 * (update + 0.05 * values[name])
  np.testing.assert_allclose(result.model.head.kernel[...], values["kernel"], atol=1e-5)
  np.testing.assert_allclose(result.model.head.bias[...], values["bias"], atol=1e-5)


def test_the_first_of_equally_good_heads_is_kept_and_unknown_labels_are_wrong(tmp_path):
  features = np.eye(3, dtype=np.float32)
  probe = Probe(steps=100, learning_rate=0.1, eval_period=50)
  select = (features, np.asarray([0, 1, -1]))
  result, _ = trained(probe, (features, np.arange(3)), select, tmp_path, classes=3)
  assert result.step == 50
  assert result.history[0]["score"] == pytest.approx(200 / 3)
  for fields, words in (({"pooling": "max"}, "'max'"), ({"hidden": 0}, "hidden is 0")):
    with pytest.raises(errors.ConfigError, match=words):
      Probe(**fields)
