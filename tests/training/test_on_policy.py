"""Learning on the student's own answers against numpy, and a teacher that follows its student."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from promot_jax import partitioning, paths
from promot_jax.checkpoints.store import Store
from promot_jax.decoding.strategies import Sample
from promot_jax.errors import ConfigError
from promot_jax.models.readout import Readout
from promot_jax.networks.loaded import Loaded
from promot_jax.networks.network import Network
from promot_jax.token_ids import T5
from promot_jax.training import optimizers, schedules
from promot_jax.training.distillation import Distillation
from promot_jax.training.objectives import Supervised
from promot_jax.training.on_policy import OnPolicyDistillation
from promot_jax.training.own_teacher import OwnTeacher
from promot_jax.training.stages import Stage
from promot_jax.training.state import create_state
from promot_jax.training.step import make_train_step
from promot_jax.training.teacher_input import Demonstrated, OtherInput, feature_of
from tiny_loop import Interrupted, train
from tiny_models import batch_of, config, tiny

B, S, T, L, D, V = 4, 5, 3, 7, 6, 11  # L: of drawn answers
SHOWN = Demonstrated(shown="others", shots=2)
STAGE = {
  "name": "model",
  "trainable": ".*",
  "steps": 6,
  "batch_size": B,
  "optimizer": optimizers.sgd,
  "learning_rate": schedules.constant(0.5),
  "metric": "error",
  "mode": "min",
  "eval_period": 3,
  "save_period": 3,
}


class Chain(nnx.Module):
  """The next token follows from the last one and from the words of the input."""

  token_ids = T5

  def __init__(self, seed):
    keys = jax.random.split(jax.random.key(seed))
    self.table = nnx.Param(jax.random.normal(keys[0], (V, D)))
    self.kernel = nnx.Param(jax.random.normal(keys[1], (D, V)))

  def hidden(self, batch, *, key=None):
    return self.table[...][batch["decoder_input_tokens"]] + self._read(batch)[:, None]

  @property
  def readout(self):
    return Readout(kernel=self.kernel[...])

  def prefill(self, batch, *, max_length):
    start = jnp.zeros(len(batch["encoder_input_tokens"]), jnp.int32)
    return self.decode_step(start, self._read(batch))

  def decode_step(self, tokens, cache):
    return self.readout.logits(self.table[...][tokens] + cache), cache

  def _read(self, batch):
    words = self.table[...][batch["encoder_input_tokens"]]
    return (words * batch["encoder_input_mask"][..., None]).sum(axis=1) / S


def chained(seed=0):
  """A batch whose last row only fills it up, with what a teacher reads beside."""
  random = np.random.default_rng([5, seed])
  weights = np.ones((B, T), np.float32)
  weights[1, 2:], weights[3] = 0, 0
  name = SHOWN.feature
  return {
    "encoder_input_tokens": random.integers(2, V, (B, S)).astype(np.int32),
    "encoder_input_mask": np.arange(S) < random.integers(1, S + 1, (B, 1)),
    "decoder_input_tokens": np.zeros((B, T), np.int32),
    "decoder_target_tokens": random.integers(1, V, (B, T)).astype(np.int32),
    "decoder_loss_weights": weights,
    name: random.integers(2, V, (B, S + 2)).astype(np.int32),
    f"{name}_mask": np.ones((B, S + 2), bool),
  }


def log_softmax(logits):
  return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def by_numpy(student, teacher, batch, *, direction):
  """(loss, gradients by name) of sums over the examples of a batch with answers, float64."""
  tokens, weights = batch["decoder_input_tokens"], np.asarray(batch["decoder_loss_weights"])
  leaves = {n: np.asarray(v, np.float64) for n, v in paths.named_leaves(student).items()}
  taught = {n: np.asarray(v, np.float64) for n, v in paths.named_leaves(teacher).items()}

  def hidden(leaves, words, mask):
    read = (leaves["table"][words] * mask[..., None]).sum(1) / S
    return leaves["table"][tokens] + read[:, None]

  words, mask = batch["encoder_input_tokens"], batch["encoder_input_mask"]
  own = hidden(leaves, words, mask)
  other = hidden(taught, batch[SHOWN.feature], batch[f"{SHOWN.feature}_mask"])
  log_q, log_p = log_softmax(own @ leaves["kernel"]), log_softmax(other @ taught["kernel"])
  q, p = np.exp(log_q), np.exp(log_p)
  if direction == "reverse":
    apart = (q * (log_q - log_p)).sum(-1)
    by_logits = q * (log_q - log_p - apart[..., None])
  else:
    apart = (p * (log_p - log_q)).sum(-1)
    by_logits = q - p
  share = weights / np.maximum(weights.sum(-1, keepdims=True), 1)
  by_logits = by_logits * share[..., None]
  by_hidden = by_logits @ leaves["kernel"].T  # [B T D]
  table = np.zeros((V, D))
  np.add.at(table, tokens, by_hidden)
  read = by_hidden.sum(1, keepdims=True) * mask[..., None] / S  # [B S D]
  np.add.at(table, words, read)
  kernel = np.einsum("btd,btv->dv", own, by_logits)
  return (apart * share).sum(), {"table": table, "kernel": kernel}


@pytest.mark.parametrize(("direction", "chunk"), [("reverse", None), ("forward", 4)])
def test_loss_and_gradient_are_those_of_the_definition_on_the_students_own_answers(
  direction, chunk
):
  student, teacher, batch = Chain(0), Chain(1), chained()
  objective = OnPolicyDistillation(direction=direction, vocabulary_chunk=chunk, length=L)
  graphdef, state = nnx.split(student)
  drawing = jax.random.split(jax.random.key(3))[0]

  @jax.jit
  def found_by(state):
    def loss_of(state):
      read = OtherInput(teacher, SHOWN.feature)
      return objective(nnx.merge(graphdef, state), batch, teacher=read, key=jax.random.key(3))

    answered = objective.answered(nnx.merge(graphdef, state), batch, key=drawing)
    return *jax.value_and_grad(loss_of, has_aux=True)(state), answered

  (loss, metrics), found, answered = jax.device_get(found_by(state))
  expected, gradients = by_numpy(student, teacher, answered, direction=direction)
  assert float(loss) == pytest.approx(expected, rel=1e-5)
  for name, leaf in paths.named_leaves(found).items():
    np.testing.assert_allclose(leaf, gradients[name], atol=2e-5, err_msg=name)
  lengths = np.asarray(answered["decoder_loss_weights"]).sum(-1)
  assert float(metrics["tokens_of_an_answer"][0]) == lengths.sum() and lengths[3] == 0
  assert float(metrics["tokens_of_an_answer"][1]) == 3 == float(objective.normalizer(batch))


def test_answers_follow_the_student_and_count_up_to_their_end():
  model = Chain(0)
  # 0 -> 5 -> 2 -> 1, the end, whatever is read.
  follows = np.full((V, V), -90.0, np.float32)
  follows[[0, 5, 2, 1], [5, 2, 1, 7]] = 90.0
  model.kernel, model.table = nnx.Param(jnp.eye(V)), nnx.Param(jnp.asarray(follows))
  batch = {**chained(), "encoder_input_mask": np.zeros((B, S), bool)}
  answered = OnPolicyDistillation(length=L).answered(model, batch, key=jax.random.key(0))
  np.testing.assert_array_equal(answered["decoder_target_tokens"][0], [5, 2, 1, 0, 0, 0, 0])
  np.testing.assert_array_equal(answered["decoder_input_tokens"][0], [0, 5, 2, 1, 0, 0, 0])
  expected = np.tile([1, 1, 1, 0, 0, 0, 0], (B, 1)) * [[1], [1], [1], [0]]
  np.testing.assert_array_equal(answered["decoder_loss_weights"], expected)


def test_answers_depend_on_the_key_and_not_on_the_targets():
  model, batch, objective = Chain(0), chained(), OnPolicyDistillation(length=L)
  other = {**batch, "decoder_target_tokens": batch["decoder_target_tokens"][:, ::-1]}
  one, two, three = (
    np.asarray(objective.answered(model, each, key=jax.random.key(key))["decoder_target_tokens"])
    for each, key in ((batch, 1), (other, 1), (batch, 2))
  )
  np.testing.assert_array_equal(one, two)
  assert (one != three).any() and one.shape == (B, L)


@pytest.mark.parametrize("kind", ["t5", "gpt2"])
def test_answers_are_as_long_as_the_targets_have_room_for(kind):
  model = tiny(kind)
  batch = {**batch_of(model), "decoder_loss_weights": np.ones((2, 4), np.float32)}
  shapes = jax.eval_shape(
    lambda key: OnPolicyDistillation().answered(model, batch, key=key), jax.random.key(0)
  )
  assert shapes["decoder_target_tokens"].shape == (2, 4) == shapes["decoder_loss_weights"].shape
  # A decoder-only model reads its targets behind the input.
  assert ("decoder_input_tokens" in shapes) == (kind == "t5")


@pytest.mark.slow  # two compilations of a whole model
@pytest.mark.parametrize("kind", ["t5", "gpt2"])
def test_answers_lie_where_teacher_forcing_reads_them(kind):
  model = tiny(kind)
  batch = {**batch_of(model), "decoder_loss_weights": np.ones((2, 4), np.float32)}
  objective = OnPolicyDistillation(sample=Sample(top_k=1))
  answered = objective.answered(model, batch, key=jax.random.key(0))
  best = np.asarray(model.logits(model.hidden(answered))).argmax(-1)
  counts = np.asarray(answered["decoder_loss_weights"]) > 0
  np.testing.assert_array_equal(best[counts], np.asarray(answered["decoder_target_tokens"])[counts])
  assert counts.sum() > 2


def test_a_teacher_of_its_own_follows_the_student_by_its_rate():
  own = OwnTeacher(rate=0.25)
  graphdef, trainable, frozen = paths.split(Chain(0), "kernel")
  objective, rate = OnPolicyDistillation(), schedules.constant(0.5)
  optimizer = optimizers.sgd(rate)
  state = create_state(trainable, optimizer, own_teacher=own)
  step = make_train_step(
    graphdef, objective, optimizer, rate, own_teacher=own, teacher_inputs=SHOWN
  )
  expected = np.asarray(Chain(0).kernel[...], np.float64)
  for number in range(2):
    before = nnx.merge(graphdef, jax.tree.map(jnp.copy, state.trainable), frozen)
    teacher = Chain(0)
    teacher.kernel[...] = jnp.asarray(expected, jnp.float32)
    key = jax.random.fold_in(jax.random.key(4), number)
    asked = OtherInput(teacher, SHOWN.feature)
    loss, _ = objective(before, chained(number), teacher=asked, key=key)
    state, metrics = step(state, frozen, chained(number), jax.random.key(4))
    assert float(metrics["loss"][0]) == pytest.approx(float(loss) / 3, rel=1e-4)
    student = np.asarray(paths.named_leaves(state.trainable)["kernel"], np.float64)
    expected += 0.25 * (student - expected)
  (average,) = paths.named_leaves(state.average).values()
  np.testing.assert_allclose(average, expected, rtol=1e-5)
  assert not np.allclose(average, student)


def test_a_student_that_is_its_own_teacher_has_nothing_to_learn_and_keeps_no_average():
  own = OwnTeacher(rate=1.0)
  graphdef, trainable, frozen = paths.split(Chain(0), ".*")
  state = create_state(trainable, optimizers.sgd(0.5), own_teacher=own)
  assert own.first(trainable) is None and state.average is None
  teacher = own.model(graphdef, state.average, state.trainable, frozen)
  loss, _ = OnPolicyDistillation()(Chain(0), chained(), teacher=teacher, key=jax.random.key(0))
  assert float(loss) == pytest.approx(0, abs=1e-6)


def test_a_stopped_run_goes_on_with_the_bits_of_one_that_was_not(tiny, tmp_path):
  stage = Stage(
    **STAGE, objective=OnPolicyDistillation(), teacher=OwnTeacher(rate=0.3), teacher_inputs=SHOWN
  )

  def run(folder, crash_at=None):
    def batches(step):
      if step == crash_at:
        raise Interrupted
      return chained(step)

    def error(model):
      return {"error": float(jnp.abs(model.table[...]).sum())}

    return train(stage, tmp_path / folder, model=Chain(0), batches=batches, validate=error)

  whole = run("whole")
  with pytest.raises(Interrupted):
    run("stopped", crash_at=4)
  assert tiny.digest(run("stopped").model) == tiny.digest(whole.model)
  last = [Store(tmp_path / each).restore(6).leaves for each in ("whole", "stopped")]
  assert tiny.digest(last[0]) == tiny.digest(last[1])
  assert {"average/kernel", "average/table"} < set(last[0])


def test_what_makes_no_sense_is_refused_with_a_sentence():
  with pytest.raises(ConfigError, match="direction='both' must be 'reverse' or 'forward'"):
    OnPolicyDistillation(direction="both")
  with pytest.raises(ConfigError, match=r"must be a strategies\.Sample of one"):
    OnPolicyDistillation(sample=Sample(samples=2))
  with pytest.raises(ConfigError, match="length=0 must be None or a whole number of at least 1"):
    OnPolicyDistillation(length=0)
  with pytest.raises(ConfigError, match=r"rate=0 must be .* above 0"):
    OwnTeacher(rate=0)
  with pytest.raises(ConfigError, match="shots=2 are of other examples"):
    Demonstrated(shots=2)
  with pytest.raises(ConfigError, match="shown='none' must be 'itself' or 'others'"):
    Demonstrated(shown="none")
  with pytest.raises(ConfigError, match="OnPolicyDistillation learns from a teacher"):
    Stage(**STAGE, objective=OnPolicyDistillation())
  with pytest.raises(ConfigError, match="a teacher that follows its student says something else"):
    Stage(**STAGE, objective=Distillation(), teacher=OwnTeacher(), teacher_cache="said")
  with pytest.raises(ConfigError, match=r"teacher_inputs=.* must be None, or of a stage with"):
    Stage(**STAGE, objective=Supervised(), teacher_inputs=Demonstrated())
  assert feature_of("hint") == "hint" and feature_of(None) is None


@pytest.mark.slow  # two compilations of a whole model
def test_two_devices_draw_and_learn_what_one_does():
  mesh = partitioning.make_mesh(data=2, model=1)
  own, rate = OwnTeacher(rate=0.5), schedules.constant(0.1)
  start = Network(backbone=config("t5", vocab_size=12, decoder_layers=1), checkpoint="random")
  batch = batch_of(tiny("t5", vocab_size=12), rows=4)
  batch = {
    name: np.minimum(array, 11) if array.dtype == np.int32 else array
    for name, array in batch.items()
  }
  batch |= {"demonstrated_inputs": batch["encoder_input_tokens"][:, ::-1].copy()}
  batch |= {"demonstrated_inputs_mask": np.ones(batch["encoder_input_tokens"].shape, bool)}
  found = []
  for where in (None, mesh):
    student = Loaded(where, lambda line: None).model(dataclasses.replace(start, seed=9))
    graphdef, trainable, frozen = paths.split(student, ".*")
    optimizer = optimizers.sgd(rate)
    state = create_state(trainable, optimizer, mesh=where, own_teacher=own)
    placed = batch if where is None else partitioning.global_batch(batch, where)
    step = make_train_step(
      graphdef,
      OnPolicyDistillation(),
      optimizer,
      rate,
      own_teacher=own,
      teacher_inputs=Demonstrated(),
    )
    state, metrics = step(state, frozen, placed, jax.random.key(1))
    found.append((paths.named_leaves((state.trainable, state.average)), metrics))
  (one, one_metrics), (two, two_metrics) = found
  for name in ("loss", "tokens_of_an_answer"):
    assert float(two_metrics[name][0]) == pytest.approx(float(one_metrics[name][0]), rel=1e-5)
  for name, leaf in one.items():
    np.testing.assert_allclose(two[name], leaf, atol=2e-5, err_msg=name)
