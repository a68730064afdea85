"""Prediction heads: trained by a stage alone, with a light method and with the whole backbone."""

import numpy as np
import optax
import pytest
from flax import nnx

from promot_jax import errors, paths
from promot_jax.checkpoints.store import Store
from promot_jax.decoding.classes import log_probabilities
from promot_jax.methods.combined import Combined
from promot_jax.methods.head import PredictionHead
from promot_jax.methods.lora import LoRA
from promot_jax.methods.prompt import SoftPrompt
from promot_jax.models.bert import Bert
from promot_jax.models.bert_config import BertConfig
from promot_jax.training import loop, validation_loss
from promot_jax.training.classification import Classification
from promot_jax.training.stages import Stage
from tiny_models import tiny

HEAD = PredictionHead(classes=3)
BATCH = {
  "encoder_input_tokens": np.asarray(
    [[5, 6, 1, 0], [8, 1, 0, 0], [5, 2, 3, 1], [7, 7, 1, 0]], np.int32
  ),
  "encoder_input_mask": np.asarray([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 0]], bool),
  "decoder_input_tokens": np.zeros((4, 3), np.int32),
  "decoder_target_tokens": np.asarray([[4, 7, 1], [9, 1, 0], [9, 4, 1], [9, 7, 1]], np.int32),
  "decoder_loss_weights": np.asarray([[1, 1, 1], [1, 1, 0], [1, 1, 1], [1, 1, 1]], np.float32),
  "class_ids": np.asarray([1, 0, 2, -1], np.int32),
}


def bert():
  config = BertConfig(vocab_size=40, width=12, heads=2, mlp_width=20, layers=1, max_positions=16)
  return Bert(config, nnx.Rngs(0))


CLASSES = [1, 0, 2]  # of the first three; the last one's answer is no class


@pytest.mark.parametrize("kind", ["t5", "bart", "gpt2", "bert"])
def test_the_loss_is_cross_entropy_of_the_classes_of_the_examples_that_have_one(kind):
  backbone = bert() if kind == "bert" else tiny(kind)
  model = HEAD.attach(backbone, nnx.Rngs(1))
  objective = Classification()
  loss, metrics = objective(model, BATCH)
  hidden, mask = (np.asarray(array, np.float64) for array in backbone.encode(BATCH))
  mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
  logits = mean @ np.asarray(model.head.kernel[...]) + np.asarray(model.head.bias[...])
  log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  np.testing.assert_allclose(loss, -log_p[range(3), CLASSES].sum(), rtol=1e-5)
  assert objective.normalizer(BATCH) == 3
  assert [float(value) for value in metrics["known_answers"]] == [3, 4]
  assert float(metrics["accuracy"][0]) == (logits[:3].argmax(-1) == CLASSES).sum()


@pytest.mark.parametrize(
  "method, trainable, moved, kept",
  [
    (HEAD, "head/.*", ["head/kernel", "head/bias"], ["token_embedder/embedding"]),
    (
      Combined(methods=[LoRA(rank=2), HEAD]),
      "method",
      ["head/kernel", "encoder/layers/0/attention/query/lora/up"],
      ["token_embedder/embedding", "encoder/layers/0/attention/query/kernel"],
    ),
    (HEAD, ".*", ["head/kernel", "token_embedder/embedding", "encoder/layers/0/mlp/wo/kernel"], []),
  ],
  ids=["alone", "with lora", "with everything"],
)
def test_a_stage_trains_the_head_with_or_without_the_rest(tmp_path, method, trainable, moved, kept):
  start = method.attach(tiny("t5"), nnx.Rngs(1))
  stage = Stage(
    name="head",
    trainable=method.parameters if trainable == "method" else trainable,
    steps=30,
    batch_size=4,
    optimizer=optax.adam,
    learning_rate=optax.constant_schedule(0.05),
    objective=Classification(),
    metric="loss",
    log_period=10,
  )
  result = loop.train_stage(stage, start, batches=lambda step: BATCH, store=Store(tmp_path), seed=0)
  before, after = paths.named_leaves(start), paths.named_leaves(result.model)
  for name in moved:
    assert np.abs(after[name] - before[name]).max() > 1e-3, name
  for name in kept:
    np.testing.assert_array_equal(after[name], before[name], err_msg=name)
  first, last = (stage.objective(model, BATCH)[1]["accuracy"][0] for model in (start, result.model))
  assert last == 3 >= first
  plain = method.detach(result.model)
  assert plain.head is None and plain.config == start.config


def test_padding_and_the_positions_of_a_prompt_are_not_read():
  method = Combined(methods=[SoftPrompt(length=3), PredictionHead(classes=3, pooling="first")])
  model = method.attach(tiny("t5"), nnx.Rngs(2))
  wider = dict(BATCH)
  for name in ("encoder_input_tokens", "encoder_input_mask"):
    wider[name] = np.pad(BATCH[name], ((0, 0), (0, 5)))
  vectors = model.head.vectors(model, BATCH)
  np.testing.assert_allclose(model.head.vectors(model, wider), vectors, atol=1e-5)
  hidden, _ = model.encode(BATCH)
  np.testing.assert_allclose(vectors, hidden[:, 3], atol=1e-6)


def test_without_a_head_or_classes_nothing_is_classified():
  with pytest.raises(errors.ConfigError, match=r"the model has none; attach PredictionHead"):
    Classification()(tiny("t5"), BATCH)
  with pytest.raises(errors.ConfigError, match="no prediction head to read classes off"):
    log_probabilities(tiny("t5"), BATCH)
  model = HEAD.attach(tiny("t5"), nnx.Rngs(0))
  unsaid = {name: array for name, array in BATCH.items() if name != "class_ids"}
  with pytest.raises(errors.ConfigError, match="The batch has no class_ids"):
    Classification()(model, unsaid)
  with pytest.raises(errors.ConfigError, match="already has a prediction head"):
    HEAD.attach(model, nnx.Rngs(0))
  with pytest.raises(errors.ConfigError, match="no prediction head to detach"):
    HEAD.detach(tiny("t5"))


def test_a_batch_without_a_known_class_weighs_nothing_in_the_validation_loss():
  model = HEAD.attach(tiny("t5"), nnx.Rngs(1))
  unknown = {**BATCH, "class_ids": np.full(4, -1, np.int32)}
  alone, both = (
    validation_loss.means(
      validation_loss.add(validation_loss.sums(model, Classification(), batches))
    )
    for batches in ([BATCH], [BATCH, unknown])
  )
  assert both["loss"] == pytest.approx(alone["loss"], rel=1e-6)


def test_rows_that_fill_a_batch_count_for_nothing():
  weights = BATCH["decoder_loss_weights"].copy()
  weights[1:] = 0.0
  model = HEAD.attach(tiny("t5"), nnx.Rngs(1))
  _, metrics = Classification()(model, {**BATCH, "decoder_loss_weights": weights})
  assert float(metrics["known_answers"][0]) == 1
