"""What an evaluation compiled for one checkpoint serves all others, with the method and without."""

import contextlib

import jax
import numpy as np
import pytest
from flax import nnx

from promot_jax import paths, token_ids
from promot_jax.data.examples import Examples
from promot_jax.data.length_report import LengthReport
from promot_jax.decoding.strategies import Beam, Greedy
from promot_jax.evaluation import evaluator
from promot_jax.evaluation.evaluator import Batching, EvalTask, Setting, Subject
from promot_jax.methods.prompt import SoftPrompt
from promot_jax.metrics import accuracy
from tiny_models import tiny

METHOD = SoftPrompt(length=5)


def examples(seed):
  """Seven inputs of lengths that fall into two buckets."""
  generator = np.random.default_rng(seed)
  inputs = [generator.integers(2, 40, size).astype(np.int32) for size in (3, 9, 4, 5, 8, 3, 7)]
  return Examples(
    name="toy",
    split="",
    features={
      "inputs": inputs,
      "targets": [np.asarray([4, 1], np.int32) for _ in inputs],
      "prompt_ids": np.zeros(len(inputs), np.int32),
    },
    records=[{} for _ in inputs],
    lengths=LengthReport(examples=len(inputs), inputs_limit=None, targets_limit=None),
  )


def task(label, method, **options):
  return EvalTask(
    label=label,
    shots=1,
    examples=examples(len(label)),
    metric_fns=[accuracy.accuracy],
    method=method,
    **options,
  )


TASKS = [
  task("tuned", "attached"),
  task("unseen", "attached"),
  task("unseen", "detached"),
  task("ranked", "detached", options={"a": [5, 1], "b": [6, 1]}),
]


def fresh(seed):
  """A model as it is created: its arrays are not bound to a device."""
  return METHOD.attach(tiny("t5", seed=seed, decoder_layers=1), nnx.Rngs(seed))


def trained(seed):
  """A model as a stage hands it on: arrays of its own, bound to their device."""
  graphdef, trainable, frozen = paths.split(fresh(seed), METHOD.parameters)
  state = jax.tree.map(lambda leaf: jax.device_put(leaf + 1, jax.devices()[0]), trainable)
  return nnx.merge(graphdef, state, frozen)


def restored(seed):
  """A model filled from a checkpoint: every array was read from files."""
  leaves = {name: np.asarray(leaf) for name, leaf in paths.named_leaves(fresh(seed)).items()}
  device = jax.devices()[0]
  leaves = {name: jax.device_put(leaf, device) for name, leaf in leaves.items()}
  return paths.replace_leaves(nnx.eval_shape(lambda: fresh(0)), leaves)


@contextlib.contextmanager
def compilations():
  """The names under which JAX reports what it compiles meanwhile."""
  found = []

  def listen(event, seconds, **details):
    if event.endswith("backend_compile_duration"):
      found.append(details.get("fun_name", event))

  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    yield found
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)


def evaluate(model, strategy):
  return evaluator.evaluate(
    Subject(make=lambda: model, decode=str, detach=METHOD.detach),
    TASKS,
    setting=Setting(special=token_ids.T5, strategy=strategy, max_target_length=3),
    batching=Batching(batch_size=4, buckets=(5, 9)),
  )


@pytest.mark.parametrize("strategy", [Greedy(), Beam(width=2)], ids=["greedy", "beam"])
def test_other_checkpoints_compile_nothing(strategy):
  jax.clear_caches()
  with compilations() as first:
    evaluate(fresh(0), strategy)
  # Two buckets, generated with and without the method; options are scored in two buckets.
  programs = [name for name in first if "decode" in name or "score" in name]
  assert len(programs) == 6, first
  for make in (fresh, trained, restored):
    model = make(1)
    with compilations() as later:
      evaluate(model, strategy)
    assert not later, f"{make.__name__} compiled {later}"
