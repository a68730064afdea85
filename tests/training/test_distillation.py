"""Distillation against numpy: values, gradients, parts of the vocabulary, two devices, one copy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from promot_jax import partitioning, paths
from promot_jax.errors import ConfigError
from promot_jax.methods.lora import LoRA
from promot_jax.models.ensemble import Ensemble
from promot_jax.models.readout import Readout
from promot_jax.networks import network
from promot_jax.networks.loaded import Loaded
from promot_jax.networks.network import Network
from promot_jax.token_ids import T5
from promot_jax.training import optimizers, schedules, validation_loss
from promot_jax.training.distillation import Distillation
from promot_jax.training.objectives import Supervised
from promot_jax.training.stages import Stage
from promot_jax.training.state import create_state
from promot_jax.training.step import make_train_step
from promot_jax.training.teacher_input import OtherInput
from tiny_models import config

B, S, T, D, E, V = 2, 4, 3, 6, 5, 11


class Table(nnx.Module):
  """Logits of a table row for each input token."""

  token_ids = T5

  def __init__(self, width, seed):
    keys = jax.random.split(jax.random.key(seed))
    self.table = nnx.Param(jax.random.normal(keys[0], (V, width)))
    self.kernel = nnx.Param(jax.random.normal(keys[1], (width, V)))

  def hidden(self, batch, *, key=None):
    return self.table[...][batch["decoder_input_tokens"]]

  @property
  def readout(self):
    return Readout(kernel=self.kernel[...])


class Reading(Table):
  """The table's rows, with those of the input's tokens, and noise where there is a key."""

  def hidden(self, batch, *, key=None):
    read = self.table[...][batch["encoder_input_tokens"]]  # [B S D]
    read = (read * batch["encoder_input_mask"][..., None]).sum(axis=1, keepdims=True)
    noise = 0.0 if key is None else jax.random.normal(key, read.shape)
    return super().hidden(batch) + read + noise


BATCH = {
  "decoder_input_tokens": np.asarray([[2, 7, 3], [9, 4, 4]], np.int32),
  "decoder_target_tokens": np.asarray([[5, 2, 1], [3, 1, 0]], np.int32),
  "decoder_loss_weights": np.asarray([[1, 1, 1], [1, 0.5, 0]], np.float32),
}


WHOLE = {
  **BATCH,
  "encoder_input_tokens": np.asarray([[4, 9, 6, 1], [8, 3, 1, 0]], np.int32),
  "encoder_input_mask": np.asarray([[1, 1, 1, 1], [1, 1, 1, 0]], bool),
}


STAGE = {
  "name": "model",
  "trainable": ".*",
  "steps": 1,
  "batch_size": 2,
  "optimizer": optimizers.sgd,
  "learning_rate": schedules.constant(0.1),
}
TEACHER = Network(
  backbone=config("t5", vocab_size=12, decoder_layers=1), checkpoint="random", seed=4
)


def log_softmax(logits):
  return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def by_numpy(logits, taught, *, weight, temperature, targets_weight=None, factor="one"):
  """(loss, gradient of the student's logits, divergence) of sums over tokens, float64."""
  weights = BATCH["decoder_loss_weights"].astype(np.float64)
  target = np.eye(V)[BATCH["decoder_target_tokens"]]
  log_q1 = log_softmax(logits)
  log_p, log_q = log_softmax(taught / temperature), log_softmax(logits / temperature)
  entropy = -(target * log_q1).sum(-1)
  divergence = (np.exp(log_p) * (log_p - log_q)).sum(-1)
  share = 1 - weight if targets_weight is None else targets_weight
  if factor == "probability":  # a constant: it has no gradient
    share = share * np.exp(-entropy)
  loss = share * entropy + weight * temperature**2 * divergence
  gradient = np.expand_dims(share, -1) * (np.exp(log_q1) - target)
  gradient += weight * temperature * (np.exp(log_q) - np.exp(log_p))
  return (loss * weights).sum(), gradient * weights[..., None], (divergence * weights).sum()


def logits_of(model):
  table, kernel = (np.asarray(leaf[...], np.float64) for leaf in (model.table, model.kernel))
  return table[BATCH["decoder_input_tokens"]] @ kernel


@pytest.mark.parametrize("chunk", [None, 4])
def test_an_ensemble_teaches_with_the_probabilities_of_its_members_together(chunk):
  student, members = Table(D, 0), [Table(E, 1), Table(D, 2)]
  teacher = Ensemble(members, weights=[0.3, 0.7], space="probability")
  objective = Distillation(weight=1.0, supervised=Supervised(vocabulary_chunk=chunk))
  loss, _ = objective(student, BATCH, teacher=teacher)
  first, second = (np.exp(log_softmax(logits_of(member))) for member in members)
  taught = np.log(0.3 * first + 0.7 * second)
  expected = by_numpy(logits_of(student), taught, weight=1.0, temperature=1.0)[0]
  np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize("chunk", [None, 4])
@pytest.mark.parametrize(
  ("weight", "temperature", "more"),
  [
    (0.3, 2.5, {}),
    (1.0, 1.0, {}),
    (0.25, 1.0, {}),
    (0.6, 0.5, {}),
    (1.7, 1.0, {"targets_weight": 1.0}),  # a KL anchor
    (0.1, 1.0, {"targets_weight": 1.0, "factor": "probability"}),  # ASFT
  ],
)
def test_loss_and_gradient_are_those_of_the_definition(weight, temperature, more, chunk):
  student, teacher = Table(D, 0), Table(E, 1)
  objective = Distillation(
    weight=weight,
    temperature=temperature,
    targets_weight=more.get("targets_weight"),
    supervised=Supervised(vocabulary_chunk=chunk, token_factor=more.get("factor", "one")),
  )
  graphdef, state = nnx.split(student)

  def loss_of(state):
    return objective(nnx.merge(graphdef, state), BATCH, teacher=teacher)

  (loss, metrics), found = jax.value_and_grad(loss_of, has_aux=True)(state)
  expected, by_logits, divergence = by_numpy(
    logits_of(student), logits_of(teacher), weight=weight, temperature=temperature, **more
  )
  assert float(loss) == pytest.approx(expected, rel=1e-5)
  assert float(metrics["divergence_from_teacher"][0]) == pytest.approx(divergence, rel=1e-4)
  table = np.asarray(student.table[...], np.float64)
  hidden = table[BATCH["decoder_input_tokens"]]
  gradients = paths.named_leaves(found)
  np.testing.assert_allclose(
    gradients["kernel"], np.einsum("btd,btv->dv", hidden, by_logits), atol=2e-5
  )
  by_hidden = by_logits @ np.asarray(student.kernel[...], np.float64).T
  by_table = np.zeros((V, D))
  np.add.at(by_table, BATCH["decoder_input_tokens"], by_hidden)
  np.testing.assert_allclose(gradients["table"], by_table, atol=2e-5)


@pytest.fixture(scope="module")
def update():
  """(objective, targets, teacher) -> parameters after one step with dropout's key, by name."""

  def updated(objective, targets=WHOLE["decoder_target_tokens"], teacher=None):
    graphdef, trainable, frozen = paths.split(Reading(D, 0), ".*")
    optimizer = optimizers.sgd(schedules.constant(0.1))
    state = create_state(trainable, optimizer)
    step = make_train_step(graphdef, objective, optimizer, schedules.constant(0.1))
    batch = {**WHOLE, "decoder_target_tokens": targets}
    state, _ = step(state, frozen, batch, jax.random.key(4), teacher)
    return paths.named_leaves(state.trainable)

  return updated


def same(one, other):
  return all(np.array_equal(leaf, other[name]) for name, leaf in one.items())


def test_without_weight_a_cocktail_is_fine_tuning_bit_by_bit_and_asks_no_teacher(update):
  supervised = Supervised(label_smoothing=0.1, z_loss=1e-4)
  cocktail = Distillation(weight=0.0, supervised=supervised)
  assert same(update(cocktail), update(supervised))  # no teacher is given, and none is missed
  stage = Stage(**STAGE, objective=cocktail, teacher=TEACHER)
  assert not stage.reads_teacher
  assert Stage(**STAGE, objective=Distillation(), teacher=TEACHER).reads_teacher


def test_with_all_weight_a_cocktail_never_reads_what_the_targets_are(update):
  teacher = Reading(E, 1)
  shuffled = WHOLE["decoder_target_tokens"][:, ::-1]
  whole, mixed = Distillation(weight=1.0), Distillation(weight=0.9)
  assert same(update(whole, teacher=teacher), update(whole, shuffled, teacher))
  assert not same(update(mixed, teacher=teacher), update(mixed, shuffled, teacher))


def test_a_teacher_may_read_another_input_than_its_student():
  model = Reading(E, 1)
  hint = np.asarray([[7, 4, 9, 6, 1, 0], [5, 8, 3, 1, 0, 0]], np.int32)
  mask = np.asarray([[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 0, 0]], bool)
  batch = {**WHOLE, "hint": hint, "hint_mask": mask}
  found = OtherInput(model, "hint").hidden(batch)
  whole = {**WHOLE, "encoder_input_tokens": hint, "encoder_input_mask": mask}
  np.testing.assert_array_equal(found, model.hidden(whole))
  student = Table(D, 0)
  loss, _ = Distillation(weight=1.0)(student, batch, teacher=OtherInput(model, "hint"))
  expected, _ = Distillation(weight=1.0)(student, whole, teacher=model)
  other, _ = Distillation(weight=1.0)(student, batch, teacher=model)
  assert float(loss) == float(expected) != float(other)
  with pytest.raises(ConfigError, match="reads feature 'hint' in place of the input"):
    OtherInput(model, "hint").hidden(WHOLE)
  with pytest.raises(ConfigError, match="teacher_inputs='hint' must be None, or of a stage with"):
    Stage(**STAGE, teacher_inputs="hint")


def test_the_text_of_an_objective_is_as_before_where_it_does_what_it_did():
  assert repr(Supervised(z_loss=0.1)) == (
    "Supervised(label_smoothing=0.0, z_loss=0.1, loss_normalizing_factor='NUM_REAL_TARGET_TOKENS',"
    " vocabulary_chunk=None)"
  )
  assert "targets_weight" not in repr(Distillation())
  assert repr(Supervised(token_factor="probability")).endswith(", token_factor='probability')")
  assert repr(Distillation(targets_weight=1.0)).endswith(", targets_weight=1.0)")


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_loss_by_own_probability_is_that_of_the_definition(smoothing):
  model = Table(D, 0)
  objective = Supervised(token_factor="probability", label_smoothing=smoothing)
  loss, metrics = objective(model, BATCH)
  log_q = log_softmax(logits_of(model))
  target = np.eye(V)[BATCH["decoder_target_tokens"]]
  soft = np.where(target > 0, 1 - smoothing, smoothing / (V - 1))
  entropy = -(soft * np.log(np.where(soft > 0, soft, 1))).sum(-1)
  token = -(soft * log_q).sum(-1) - entropy
  weights = BATCH["decoder_loss_weights"].astype(np.float64)
  probability = np.exp((target * log_q).sum(-1))
  assert float(loss) == pytest.approx((probability * token * weights).sum(), rel=1e-5)
  assert float(metrics["cross_ent_loss"][0]) == pytest.approx((token * weights).sum(), rel=1e-5)
  with pytest.raises(ConfigError, match="token_factor='own' must be 'one' or 'probability'"):
    Supervised(token_factor="own")


def test_a_student_that_is_its_teacher_is_at_distance_nothing():
  model = Table(D, 0)
  _, metrics = Distillation()(model, BATCH, teacher=model)
  assert abs(float(metrics["divergence_from_teacher"][0])) < 1e-5


def test_the_validation_loss_is_the_distillations():
  student, teacher = Table(D, 0), Table(E, 1)
  objective = Distillation(weight=0.3, temperature=2.0)
  expected, _, _ = by_numpy(logits_of(student), logits_of(teacher), weight=0.3, temperature=2.0)
  sums = validation_loss.add(validation_loss.sums(student, objective, [BATCH], teacher=teacher))
  total = BATCH["decoder_loss_weights"].sum()
  assert validation_loss.means(sums)["loss"] == pytest.approx(expected / total, rel=1e-5)


def test_a_teacher_and_an_objective_that_learns_from_it_come_together():
  with pytest.raises(ConfigError, match="Distillation learns from a teacher"):
    Stage(**STAGE, objective=Distillation())
  with pytest.raises(ConfigError, match="Supervised does not learn from one"):
    Stage(**STAGE, teacher=TEACHER)
  with pytest.raises(ConfigError, match="at least 0 and at most 1"):
    Distillation(weight=1.5)
  assert Stage(**STAGE, objective=Distillation(), teacher=TEACHER).teacher == TEACHER


def test_a_teacher_that_is_the_start_is_the_same_arrays_as_the_frozen_backbone():
  loaded = Loaded(None, lambda line: None)
  method = LoRA(rank=2)
  student = network.attach(loaded.model(TEACHER), method, None, seed=0)
  _, _, frozen = paths.split(student, method.parameters)
  teacher = paths.named_leaves(loaded.model(dataclasses.replace(TEACHER)))
  kept = paths.named_leaves(frozen)
  assert kept.keys() == teacher.keys()
  for name, leaf in kept.items():
    assert leaf.unsafe_buffer_pointer() == teacher[name].unsafe_buffer_pointer(), name


@pytest.mark.slow  # one compilation after the other
def test_two_devices_give_the_update_of_one():
  mesh = partitioning.make_mesh(data=1, model=2)
  objective = Distillation(weight=0.6, temperature=2.0, supervised=Supervised(vocabulary_chunk=4))
  found = {}
  for where in (None, mesh):
    loaded = Loaded(where, lambda line: None)
    student = loaded.model(dataclasses.replace(TEACHER, seed=9))
    graphdef, trainable, frozen = paths.split(student, ".*")
    optimizer = optimizers.sgd(schedules.constant(0.1))
    state = create_state(trainable, optimizer, mesh=where)
    batch = WHOLE if where is None else partitioning.global_batch(WHOLE, where)
    step = make_train_step(graphdef, objective, optimizer, schedules.constant(0.1))
    state, metrics = step(state, frozen, batch, None, loaded.model(TEACHER))
    found[where] = paths.named_leaves(state.trainable), metrics
  (one, one_metrics), (two, two_metrics) = found[None], found[mesh]
  for name in ("loss", "divergence_from_teacher"):
    assert float(two_metrics[name][0]) == pytest.approx(float(one_metrics[name][0]), rel=1e-5)
  for name, leaf in one.items():
    np.testing.assert_allclose(two[name], leaf, atol=2e-5, err_msg=name)
  assert jnp.isfinite(one_metrics["loss"][0]) and S == 4
