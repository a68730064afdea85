"""A reader who follows one batch to its gradient has few files to read, and is called back up seldom."""

import functools
import pathlib
import re
import sys

import jax
import numpy as np
import pytest
from flax import nnx

import promot_jax
from promot_jax import paths
from promot_jax.data import examples
from promot_jax.data.batches import TrainBatches
from promot_jax.methods.prompt import SoftPrompt
from promot_jax.models.decoder_lm_config import DecoderLMConfig
from promot_jax.models.t5_config import T5Config
from promot_jax.networks import backbones
from promot_jax.token_ids import TokenIds
from promot_jax.training import optimizers, schedules, state, step
from promot_jax.training.objectives import Supervised

PACKAGE = pathlib.Path(promot_jax.__file__).resolve().parent
PAGE = (PACKAGE.parent / "docs" / "architecture.md").read_text()

T5 = T5Config(
  vocab_size=19,
  width=12,
  heads=3,
  head_width=4,
  mlp_width=20,
  encoder_layers=2,
  decoder_layers=2,
  dropout_rate=0.1,
)
GPT = DecoderLMConfig(
  vocab_size=19, width=12, layers=2, heads=3, head_width=4, mlp_width=20, eos=1, pad=0
)


def uses(room: str, other: str) -> bool:
  """Whether the page's table lets a room import another one."""
  (allowed,) = re.findall(rf"^\| `{room}` \| [^|]* \| ([^|]*) \|$", PAGE, re.MULTILINE)
  return other in {name.split(".")[0] for name in re.findall(r"`([\w.]+)`", allowed)}


@functools.cache  # every call of every library comes by
def within(filename: str) -> str | None:
  """'training/step' for the package's files, None for others."""
  path = pathlib.Path(filename)
  return path.relative_to(PACKAGE).with_suffix("").as_posix() if PACKAGE in path.parents else None


@functools.cache
def walk(config) -> tuple[list[str], set[tuple[str, str]]]:
  """Files that a batch passes through from its examples to the update, and calls (from, to) between them."""
  files: list[str] = []
  calls: set[tuple[str, str]] = set()

  def watch(frame, event, argument):
    del argument
    here = within(frame.f_code.co_filename) if event == "call" else None
    if here is None:
      return
    if here not in files:
      files.append(here)
    caller = frame.f_back
    while caller is not None and within(caller.f_code.co_filename) is None:
      caller = caller.f_back
    if caller is not None:
      calls.add((within(caller.f_code.co_filename), here))

  tokens = [np.array([5, 6, 7, 1], np.int32), np.array([8, 1], np.int32)]
  read = examples.in_memory("toy", tokens, tokens, [{}, {}])
  batches = TrainBatches(read, batch_size=2, special=TokenIds.of(config))
  method = SoftPrompt(length=3)
  rate = schedules.constant(0.1)
  optimizer = optimizers.adamw(rate)
  model = nnx.eval_shape(lambda: method.attach(backbones.build(config, nnx.Rngs(0)), nnx.Rngs(1)))
  graphdef, trainable, frozen = paths.split(model, method.parameters)
  begun = jax.eval_shape(lambda values: state.create_state(values, optimizer), trainable)
  update = step.make_train_step(graphdef, Supervised(), optimizer, rate)
  key = jax.random.key(0)
  former = sys.getprofile()
  sys.setprofile(watch)
  try:
    batch = batches(0)
    jax.eval_shape(update, begun, frozen, batch, key)
  finally:
    sys.setprofile(former)
  return files, calls


@pytest.mark.parametrize("config", [T5, GPT], ids=["t5", "gpt2"])
def test_one_batch_passes_few_files_and_is_called_back_up_twice(config):
  files, calls = walk(config)
  assert 10 < len(files) <= 15, files
  rooms = {pair: tuple(name.split("/")[0] for name in pair) for pair in calls}
  climbs = {pair for pair, (lower, upper) in rooms.items() if lower != upper and uses(upper, lower)}
  assert len(climbs) == 2, climbs  # a method's module in its slot, and the loss of a part of logits


def test_the_page_lists_the_files_of_that_walk():
  files, _ = walk(T5)
  assert re.findall(r"^\d+\. `(\S+)`", PAGE, re.MULTILINE) == files
