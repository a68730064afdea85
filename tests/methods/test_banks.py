"""Banks of every method: each example of a batch gets what its own method gives it alone."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from promot_jax import errors, paths
from promot_jax.decoding.generate import generate
from promot_jax.decoding.strategies import Beam, Greedy
from promot_jax.methods import lora
from promot_jax.methods.combined import Combined
from promot_jax.methods.ia3 import IA3
from promot_jax.methods.infix import InfixTuning
from promot_jax.methods.lora import LoRA
from promot_jax.methods.prefix import NormalPrefix, PrefixTuning, Reparameterization
from promot_jax.methods.prompt import PromptNetwork, SoftPrompt, check_prompt_ids, prompt_count
from tiny_models import batch_from, close, moved, tiny, tokens

SOURCE, TARGET, TASKS = 5, 4, 2
IDS = np.asarray([1, 0, 0, 1], np.int32)
BANKS = {
  "prompt": SoftPrompt(length=3, tasks=TASKS),
  "p_tuning": SoftPrompt(length=3, tasks=TASKS, network=PromptNetwork(hidden=6)),
  "prefix": PrefixTuning(length=3, tasks=TASKS, initializer=NormalPrefix(std=1.0)),
  "prefix_network": PrefixTuning(
    length=3, tasks=TASKS, reparameterization=Reparameterization(hidden=6, width=4)
  ),
  "infix": InfixTuning(length=3, tasks=TASKS),
  "lora": LoRA(rank=2, tasks=TASKS, targets=".*"),
  "ia3": IA3(tasks=TASKS),
  "prompt_and_lora": Combined(
    methods=[SoftPrompt(length=3, tasks=TASKS), LoRA(rank=2, tasks=TASKS)]
  ),
}
QUICK = {("prompt", "t5"), ("prefix", "t5"), ("lora", "gpt2"), ("ia3", "t5"), ("infix", "gpt2")}
PAIRS = [
  pytest.param(
    name, kind, marks=[] if (name, kind) in QUICK else [pytest.mark.slow], id=f"{name}-{kind}"
  )
  for name in BANKS
  for kind in ("t5", "gpt2", "llama")
  if (name, kind) != ("infix", "t5")
]
each_pair = pytest.mark.parametrize("name,kind", PAIRS)


def backbone(kind):
  return tiny(kind, **({"decoder_layers": 1} if kind == "t5" else {"layers": 1}))


@functools.cache
def bank_of(name, kind):
  """The bank attached, its parameters moved from their start to different values for each task."""
  method = BANKS[name]
  return moved(method.attach(backbone(kind), nnx.Rngs(1)), method)


def alone_of(name, kind, task):
  """The method without a bank, with the values of one task."""
  method = BANKS[name]
  if isinstance(method, Combined):
    parts = [dataclasses.replace(part, tasks=1) for part in method.methods]
    method = Combined(methods=parts)
  else:
    method = dataclasses.replace(method, tasks=1)
  model = method.attach(backbone(kind), nnx.Rngs(1))
  leaves, bank = paths.named_leaves(model), paths.named_leaves(bank_of(name, kind))
  own = {leaf: bank[leaf][task] for leaf in paths.match(method.parameters, leaves)}
  return paths.replace_leaves(model, {**leaves, **own})


def batch_of(kind, rows=None):
  """Four examples of two lengths with their tasks, or some of them without."""
  model = backbone(kind)
  source = tokens(model, len(IDS), SOURCE, seed=2)
  source[1:3, 3:] = model.config.pad
  batch = batch_from(model, source, tokens(model, len(IDS), TARGET, seed=3))
  if rows is None:
    return {**batch, "prompt_ids": IDS}
  return {part: leaf[rows] for part, leaf in batch.items()}


@functools.partial(jax.jit, static_argnames="graphdef")
def _value_and_gradient(trainable, frozen, batch, graphdef):
  def loss(trainable):
    model = nnx.merge(graphdef, trainable, frozen)
    logits = model.logits(model.hidden(batch))
    scores = jax.nn.log_softmax(logits)
    found = jnp.take_along_axis(scores, batch["decoder_target_tokens"][..., None], -1)
    return -jnp.sum(found), logits

  return jax.value_and_grad(loss, has_aux=True)(trainable)


def trained(name, model, batch):
  """(logits [B T V], gradients of the summed loss by name of the own parameter)."""
  graphdef, trainable, frozen = paths.split(model, BANKS[name].parameters)
  (_, logits), gradients = _value_and_gradient(trainable, frozen, batch, graphdef)
  return np.asarray(logits), paths.named_leaves(gradients)


@each_pair
def test_logits_and_gradients_are_those_of_each_examples_own_method(name, kind):
  bank = bank_of(name, kind)
  assert prompt_count(bank) == TASKS
  logits, gradients = trained(name, bank, batch_of(kind))
  for task in range(TASKS):
    rows = np.flatnonzero(task == IDS)
    expected, own = trained(name, alone_of(name, kind, task), batch_of(kind, rows))
    close(logits[rows], expected)
    largest = max(float(np.abs(leaf).max()) for leaf in own.values())
    for leaf, gradient in own.items():
      close(gradients[leaf][task], gradient, largest=largest)
  assert np.abs(logits[0] - trained(name, bank, wrong(batch_of(kind)))[0][0]).max() > 1e-3


def wrong(batch):
  """The batch with the tasks exchanged."""
  return {**batch, "prompt_ids": 1 - IDS}


@each_pair
@pytest.mark.parametrize(
  "strategy",
  [
    pytest.param(Greedy(), id="greedy", marks=pytest.mark.slow),
    pytest.param(Beam(width=3), id="beam"),
  ],
)
def test_decoded_tokens_are_those_of_each_examples_own_method(name, kind, strategy):
  given = {"strategy": strategy, "max_length": TARGET}
  together = generate(bank_of(name, kind), batch_of(kind), **given)
  for task in range(TASKS):
    rows = np.flatnonzero(task == IDS)
    alone = generate(alone_of(name, kind, task), batch_of(kind, rows), **given)
    np.testing.assert_array_equal(together.tokens[rows], alone.tokens)
    np.testing.assert_allclose(together.scores[rows], alone.scores, rtol=1e-5, atol=1e-5)


@each_pair
def test_a_batch_without_ids_and_an_unknown_id_are_noticed(name, kind):
  bank = bank_of(name, kind)
  with pytest.raises(errors.ConfigError, match="prompt_ids"):
    jax.eval_shape(bank.hidden, batch_of(kind, np.arange(2)))
  with pytest.raises(errors.ConfigError, match="prompt_ids"):
    generate(bank, batch_of(kind, np.arange(2)), strategy=Greedy(), max_length=2)
  with pytest.raises(errors.DataError, match=r"\[7\] are unknown; the model holds 2 prompt"):
    check_prompt_ids(np.asarray([0, 7]), prompt_count(bank))
  unknown = {**batch_of(kind), "prompt_ids": np.asarray([1, 7, 0, 1], np.int32)}
  logits, _ = trained(name, bank, unknown)
  assert np.isnan(logits[1]).all() and np.isfinite(logits[[0, 2, 3]]).all()


@pytest.mark.parametrize("name,merge", [("lora", lora.merge), ("ia3", None)])
def test_a_bank_cannot_be_merged_into_one_set_of_kernels(name, merge):
  one = dataclasses.replace(BANKS[name], tasks=1)  # what counts is the model
  merges = [BANKS[name].merge, one.merge, *([merge] if merge else [])]
  for function in merges:
    with pytest.raises(errors.ConfigError, match=r"2 tasks, and kernels can contain one"):
      function(bank_of(name, "gpt2"))
