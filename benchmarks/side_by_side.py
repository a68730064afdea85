"""What the benchmarks beside transformers share: networks, batches, their torch twins, clocks.

Import it before jax and torch: it sets what they read from the environment.  Both sides run in one
process and take turns, because a shared machine is never equally busy twice.  CPU time is the
process's over all threads; wall time is what a user waits.
"""

import argparse
import dataclasses
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # or the time to compile means nothing
# Threads of one side must not spin while the other is timed.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers
from flax import nnx

from promot_jax import paths
from promot_jax.checkpoints import huggingface
from promot_jax.cli import allocator
from promot_jax.methods.prompt import FromArray, SoftPrompt
from promot_jax.models import decoder_sizes
from promot_jax.models.decoder_lm import DecoderLM
from promot_jax.models.decoder_lm_config import DecoderLMConfig
from promot_jax.models.t5 import T5
from promot_jax.models.t5_config import T5Config

Config = T5Config | DecoderLMConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
  """One network and the shape of its batches; lengths in tokens."""

  name: str
  config: Config
  batch: int
  inputs: int = 128
  targets: int = 32
  prompt: int = 100

  @property
  def decoder_only(self) -> bool:
    return isinstance(self.config, DecoderLMConfig)


ANCHOR = Case(
  name="anchor",  # the configuration T5X was measured with
  config=T5Config(
    vocab_size=4096,
    width=256,
    heads=4,
    head_width=64,
    mlp_width=512,
    encoder_layers=4,
    decoder_layers=4,
  ),
  batch=16,
)
SMALL = Case(
  name="t5-1.1-small",
  config=T5Config(
    vocab_size=32128,
    width=512,
    heads=6,
    head_width=64,
    mlp_width=1024,
    encoder_layers=8,
    decoder_layers=8,
  ),
  batch=4,
)
QUICK = Case(
  name="quick",
  config=T5Config(
    vocab_size=512,
    width=32,
    heads=2,
    head_width=8,
    mlp_width=48,
    encoder_layers=2,
    decoder_layers=1,
  ),
  batch=4,
  inputs=24,
  targets=8,
  prompt=10,
)
GPT2 = Case(name="gpt2-small", config=decoder_sizes.gpt2_small(), batch=4)
QUICK_GPT2 = Case(
  name="quick-gpt2",
  config=DecoderLMConfig(
    vocab_size=512, width=32, heads=2, head_width=16, mlp_width=48, layers=2, eos=1
  ),
  batch=4,
  inputs=24,
  targets=8,
  prompt=10,
)
CASES = {case.name: case for case in (ANCHOR, SMALL, GPT2, QUICK, QUICK_GPT2)}


def parser(description: str, *, repeats: str) -> argparse.ArgumentParser:
  """The flags that all these benchmarks have."""
  flags = argparse.ArgumentParser(description=description.split("\n", 1)[0])
  flags.add_argument("--quick", action="store_true", help="tiny shapes, three repeats")
  flags.add_argument("--repeats", "--steps", type=int, default=None, help=repeats)
  flags.add_argument("--case", nargs="*", help="names of networks; all without it")
  flags.add_argument("--methods", nargs="*", default=["full", "prompt"])
  flags.add_argument("--threads", type=int, default=os.cpu_count())
  flags.add_argument(
    "--default_malloc", action="store_true", help="without the malloc settings of `promot`"
  )
  return flags


def chosen_cases(
  options: argparse.Namespace,
  *,
  cases: Sequence[Case] = (ANCHOR, SMALL),
  quick: Sequence[Case] = (QUICK,),
) -> list[Case]:
  """The networks that the flags ask for."""
  known = quick if options.quick else cases
  chosen = [case for case in known if not options.case or case.name in options.case]
  if not chosen:
    names = ", ".join(case.name for case in known)
    raise SystemExit(f"--case {' '.join(options.case)}: there is none of these; known are {names}.")
  return chosen


def start(options: argparse.Namespace, *, repeats: int) -> None:
  """Fills in the number of repeats, sets torch's threads, and prints what is compared."""
  options.repeats = options.repeats or (3 if options.quick else repeats)
  torch.set_num_threads(options.threads)
  kept = not options.default_malloc and allocator.keep_memory()  # for both sides
  print(
    f"jax {jax.__version__}, torch {torch.__version__}, transformers {transformers.__version__},"
    f" {options.threads} threads, {'malloc as in promot' if kept else 'default malloc'},"
    f" load {os.getloadavg()[0]:.1f}; ratios below 1: ours is faster"
  )


HEADINGS = "  |  ".join(
  [
    "CPU s min: ours  theirs  ratio",
    "median: ours  theirs  ratio",
    "wall s min: ours  theirs  ratio",
    "median: ours  theirs  ratio",
    "compile CPU s",
  ]
)


def take_turns(sides: Mapping[str, Callable], batches: list, *, repeats: int) -> dict:
  """Runs all sides on the same batches: side -> [(CPU seconds, wall seconds)]."""
  times: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
  for index in range(repeats):
    order = list(sides.items())
    for side, run in order if index % 2 else reversed(order):
      times[side].append(timed(run, batches[index % len(batches)]))
  return times


def timed(run: Callable, batch: dict) -> tuple[float, float]:
  """(CPU seconds, wall seconds) of one call."""
  cpu, wall = time.process_time(), time.perf_counter()
  run(batch)
  return time.process_time() - cpu, time.perf_counter() - wall


def cells(times: dict, compile_seconds: float) -> str:
  """The columns under HEADINGS."""
  columns = [
    f"{ours:.3f}  {theirs:.3f}  {ours / theirs:.2f}" for ours, theirs in best_and_median(times)
  ]
  return "  |  ".join([*columns, f"{compile_seconds:.1f}"])


def best_and_median(
  times: dict, sides: tuple[str, str] = ("ours", "theirs")
) -> list[tuple[float, float]]:
  """Seconds of two sides: least CPU, median CPU, least wall, median wall."""
  return [
    tuple(reduce([pair[clock] for pair in times[side]]) for side in sides)
    for clock in (0, 1)
    for reduce in (min, statistics.median)
  ]


def make_batch(case: Case, seed: int) -> dict[str, np.ndarray]:
  """Random tokens with padded ends, as numpy int32.

  Inputs of a decoder-only network are all of the full length: PEFT counts positions by columns, so
  padding there would be another network.
  """
  generator = np.random.default_rng(seed)
  size = case.config.vocab_size

  def tokens(length):
    values = generator.integers(2, size, (case.batch, length)).astype(np.int32)
    lengths = generator.integers(length // 2, length + 1, (case.batch, 1))
    return values * (np.arange(length) < lengths)

  targets = tokens(case.targets)
  if case.decoder_only:
    inputs = generator.integers(2, size, (case.batch, case.inputs)).astype(np.int32)
    return {
      "encoder_input_tokens": inputs,
      "encoder_input_mask": np.ones(inputs.shape, bool),
      "decoder_target_tokens": np.where(targets > 0, targets, case.config.pad).astype(np.int32),
      "decoder_loss_weights": (targets > 0).astype(np.float32),
    }
  decoder_inputs = np.concatenate([np.zeros_like(targets[:, :1]), targets[:, :-1]], axis=1)
  inputs = tokens(case.inputs)
  return {
    "encoder_input_tokens": inputs,
    "encoder_input_mask": inputs > 0,
    "decoder_input_tokens": decoder_inputs,
    "decoder_target_tokens": targets,
    "decoder_loss_weights": (targets > 0).astype(np.float32),
  }


def network(config: Config) -> T5 | DecoderLM:
  """A fresh model."""
  kind = DecoderLM if isinstance(config, DecoderLMConfig) else T5
  return kind(config, nnx.Rngs(0))


def initial_weights(config: Config) -> dict[str, np.ndarray]:
  """A fresh model's parameters by name."""
  leaves = paths.named_leaves(network(config))
  return {name: np.asarray(leaf) for name, leaf in leaves.items()}


def initial_prompt(case: Case) -> np.ndarray:
  """[P D] float32."""
  prompt = np.random.default_rng(5).uniform(-0.5, 0.5, (case.prompt, case.config.width))
  return prompt.astype(np.float32)


def our_backbone(case: Case, weights: dict) -> T5 | DecoderLM:
  """Our network with the given weights."""
  return paths.replace_leaves(
    network(case.config), {name: jnp.asarray(leaf) for name, leaf in weights.items()}
  )


def our_model(case: Case, weights: dict, prompt: np.ndarray | None) -> T5 | DecoderLM:
  """Our network with the given weights, and the prompt attached if there is one."""
  model = our_backbone(case, weights)
  if prompt is None:
    return model
  method = SoftPrompt(length=len(prompt), initializer=FromArray(array=prompt))
  return method.attach(model, nnx.Rngs(0))


def torch_backbone(case: Case, weights: dict, *, use_cache: bool):
  """transformers' T5 or GPT-2 with the same weights."""
  kind = (
    transformers.GPT2LMHeadModel if case.decoder_only else transformers.T5ForConditionalGeneration
  )
  with tempfile.TemporaryDirectory() as folder:
    model = kind.from_pretrained(huggingface.write_hf(f"{folder}/model", weights, case.config))
  model.config.use_cache = use_cache
  return model


def torch_model(case: Case, weights: dict, prompt: np.ndarray | None, *, use_cache: bool):
  """transformers' network, inside PEFT's prompt tuning if there is a prompt."""
  model = torch_backbone(case, weights, use_cache=use_cache)
  return model if prompt is None else with_peft_prompt(model, prompt)


def with_peft_prompt(model, prompt: np.ndarray):
  """PEFT's prompt tuning with the given vectors before the encoder's input."""
  import peft

  settings = peft.PromptTuningConfig(
    task_type="SEQ_2_SEQ_LM", num_virtual_tokens=len(prompt), num_transformer_submodules=1
  )
  model = peft.get_peft_model(model, settings)
  (parameter,) = [value for value in model.parameters() if value.requires_grad]
  parameter.data.copy_(torch.from_numpy(prompt))
  return model
