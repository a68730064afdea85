"""Time of decoding with an ensemble of two, beside one of its members and beside a loop over transformers' models.

  python benchmarks/ensembles.py            the anchor network, batches of 1 and of 16
  python benchmarks/ensembles.py --quick    tiny shapes: does it run, are the outputs the same
  python benchmarks/ensembles.py --sweep    seven shares at once beside one decode, on the micro validation set

Two fully tuned members have nothing in common; two prompts are on one backbone.  No token ends an output,
so that all sides write the same number of tokens.  transformers has no ensembles: its side is a greedy loop
over two of its models with their caches, whose probabilities are averaged, as one would write it by hand.
Read the ratios: absolute times belong to the machine and to its load.

A sweep takes the runs that ensemble_rte_micro.gin names, or those of --light_run and --full_run, and decodes the
selection split of their task; every output is compared with that of its share alone before anything is timed.
"""

import argparse
import dataclasses
import os
from collections.abc import Callable, Mapping

import side_by_side

# isort: split
import numpy as np
import torch
from flax import nnx
from side_by_side import Case

from promot_jax.cli import gin_config
from promot_jax.decoding.generate import generate
from promot_jax.decoding.strategies import Beam, Greedy, Strategy
from promot_jax.evaluation import evaluator, running
from promot_jax.evaluation import rows as rows_lib
from promot_jax.evaluation import together as together_lib
from promot_jax.experiments import data, measurement
from promot_jax.experiments.model_directory import ModelDirectory
from promot_jax.experiments.session import Session
from promot_jax.methods.prompt import FromArray, SoftPrompt
from promot_jax.models.ensemble import Ensemble
from promot_jax.models.sweep import Sweep
from promot_jax.signals import Stop
from promot_jax.training.events import Events

NO_END = -1  # as the id of EOS: never generated
STRATEGIES: dict[str, Strategy] = {"greedy": Greedy(), "beam-4": Beam(width=4)}
WEIGHT = 0.4
SHARES = (0, 0.1, 0.25, 0.5, 0.75, 0.9, 1)  # Hewitt et al.'s


def main() -> None:
  flags = side_by_side.parser(__doc__, repeats="timed batches of each side")
  flags.add_argument("--strategies", nargs="*", default=list(STRATEGIES))
  flags.add_argument("--batches", nargs="*", type=int, default=[1, 16])
  flags.add_argument(
    "--sweep", action="store_true", help="time a sweep over shares, and nothing else"
  )
  flags.add_argument("--light_run", default="runs/prompt_tune_rte_micro")
  flags.add_argument("--full_run", default="runs/fine_tune_rte_micro")
  flags.add_argument("--examples", type=int, default=None, help="of the sweep; all without it")
  options = flags.parse_args()
  side_by_side.start(options, repeats=7)
  if options.sweep:
    for strategy in options.strategies:
      compare_sweep(strategy, options)
    return
  print(
    "config   batch  members strategy |  CPU s min: one  two  ratio  |  transformers' two  ratio"
    "  |  equal outputs  load"
  )
  for case in side_by_side.chosen_cases(options, cases=(side_by_side.ANCHOR,)):
    for size in options.batches:
      for method in options.methods:
        for strategy in options.strategies:
          compare(dataclasses.replace(case, batch=size), method, strategy, options)


def compare(case: Case, method: str, strategy: str, options: argparse.Namespace) -> None:
  """Times all sides in turn and prints one line."""
  batches = [side_by_side.make_batch(case, seed) for seed in range(3)]
  weights = [side_by_side.initial_weights(case.config)] * 2
  if method == "full":
    weights[1] = {name: _moved(name, leaf) for name, leaf in weights[1].items()}
  members = our_members(case, weights, method)
  together = Ensemble(members, weights=[WEIGHT, 1 - WEIGHT], space="probability")
  sides = {
    name: our_decoder(case, model, STRATEGIES[strategy])
    for name, model in (("one", members[0]), ("two", together))
  }
  # A beam search over two models is no loop that one writes by hand; the prompt is PEFT's own.
  if strategy == "greedy" and method == "full":
    sides["theirs"] = their_loop(case, weights)
  first = {name: run(batches[0]) for name, run in sides.items()}  # compiles
  times = side_by_side.take_turns(sides, batches, repeats=options.repeats)
  best = {name: min(cpu for cpu, _ in found) for name, found in times.items()}
  label = f"{case.name:<8} {case.batch:>5}  {method:<7} {strategy:<8}"
  line = f"{best['one']:.3f}  {best['two']:.3f}  {best['two'] / best['one']:.2f}"
  theirs = "-"
  if "theirs" in best:
    theirs = f"{best['theirs']:.3f}  {best['two'] / best['theirs']:.2f}"
    equal = (first["two"] == first["theirs"]).all(axis=-1).mean()
    # Near-ties are rounded differently, and one other token changes all that follow.
    if equal < 0.7:
      raise AssertionError(f"Only {equal:.0%} of the outputs of {case.name} are the same.")
    theirs += f"  |  {equal:.0%}"
  print(f"{label} |  {line}  |  {theirs}  {os.getloadavg()[0]:.1f}", flush=True)


def compare_sweep(strategy: str, options: argparse.Namespace) -> None:
  """Times one share and all of them in turn on a selection split, and prints one line."""
  runs = [f"LIGHT_RUN = '{options.light_run}'", f"FULL_RUN = '{options.full_run}'"]
  scanned = gin_config.read(["ensemble_rte_micro.gin"], ["MODEL_DIR = 'unused'", *runs])
  experiment = gin_config.build(scanned)
  session = Session(stop=Stop(), console=Events([]))
  directory = ModelDirectory(experiment=experiment, session=session, events=Events([]))
  whole = session.pretrained(experiment)
  tasks = [
    dataclasses.replace(
      task, examples=task.examples.select(range(len(task.examples))[: options.examples])
    )
    for task in data.selection_tasks(experiment, session.reader)
  ]
  setting = dataclasses.replace(measurement.setting_of(experiment), strategy=STRATEGIES[strategy])
  rows = [row for number, task in enumerate(tasks) for row in rows_lib.of_task(number, task)]

  def outputs(model: nnx.Module, copies: int = 1) -> list[list[int]]:
    subject = evaluator.Subject(make=lambda: model, decode=str)
    found = running.outputs(
      subject,
      rows,
      tasks,
      setting=setting,
      batching=measurement.batching_of(directory),
      copies=copies,
    )
    return [output.tokens for batch in found for _, output in batch.outputs]

  def one(share: float) -> nnx.Module:
    members = list(whole.members)
    return Ensemble(members, weights=[share, 1 - share], space=whole.space)

  sweep = Sweep(whole, [[share, 1 - share] for share in SHARES])
  together = outputs(sweep, len(SHARES))  # compiles
  for number, share in enumerate(SHARES):
    if together[number :: len(SHARES)] != outputs(one(share)):
      raise AssertionError(f"Share {share:g} writes something else alone.")
  found = together_lib.prefixes(together, len(SHARES))
  sides = {"one": lambda _: outputs(one(WEIGHT)), "all": lambda _: outputs(sweep, len(SHARES))}
  times = side_by_side.take_turns(sides, [{}], repeats=options.repeats)
  best = {name: min(cpu for cpu, _ in own) for name, own in times.items()}
  print(
    f"{len(SHARES)} shares, {len(rows)} examples, {strategy:<8} |  CPU s min: one {best['one']:.3f}  all"
    f" {best['all']:.3f}  ratio {best['all'] / best['one']:.2f}  |  {found.share:.0%} of {found.total} prefixes"
    f" distinct  |  load {os.getloadavg()[0]:.1f}",
    flush=True,
  )


def our_members(case: Case, weights: list[Mapping[str, np.ndarray]], method: str) -> list:
  """Two networks of their own weights, or one backbone with two prompts."""
  backbone = side_by_side.our_backbone(case, weights[0])
  if method == "full":
    return [backbone, side_by_side.our_backbone(case, weights[1])]
  prompt = side_by_side.initial_prompt(case)
  return [
    SoftPrompt(length=case.prompt, initializer=FromArray(array=sign * prompt)).attach(
      backbone, nnx.Rngs(0)
    )
    for sign in (1, -1)
  ]


def our_decoder(case: Case, model: nnx.Module, strategy: Strategy) -> Callable:
  """decode(batch) -> the best output of each example, [B T]."""

  def run(batch) -> np.ndarray:
    result = generate(model, batch, strategy=strategy, max_length=case.targets, eos=NO_END)
    return np.asarray(result.tokens[:, 0])

  return run


def their_loop(case: Case, weights: list[Mapping[str, np.ndarray]]) -> Callable:
  """decode(batch) -> the outputs of a greedy loop over two of transformers' models, [B T]."""
  models = [side_by_side.torch_backbone(case, each, use_cache=True).eval() for each in weights]

  def run(batch) -> np.ndarray:
    inputs = torch.from_numpy(batch["encoder_input_tokens"]).long()
    mask = (inputs > 0).long()
    with torch.inference_mode():
      memories = [model.encoder(input_ids=inputs, attention_mask=mask) for model in models]
      caches: list = [None] * len(models)
      last = torch.zeros((len(inputs), 1), dtype=torch.long)  # the start token
      written = []
      for _ in range(case.targets):
        together = 0.0
        for number, (model, share) in enumerate(zip(models, (WEIGHT, 1 - WEIGHT))):
          found = model(
            encoder_outputs=memories[number],
            attention_mask=mask,
            decoder_input_ids=last,
            past_key_values=caches[number],
            use_cache=True,
          )
          caches[number] = found.past_key_values
          together = together + share * found.logits[:, -1].softmax(-1)
        last = together.argmax(-1, keepdim=True)
        written.append(last)
    return torch.cat(written, dim=1).numpy()

  return run


def _moved(name: str, leaf: np.ndarray) -> np.ndarray:
  """Another model's values: as if it had been tuned on."""
  noise = np.random.default_rng(len(name)).normal(scale=0.1 * leaf.std(), size=leaf.shape)
  return (leaf + noise).astype(leaf.dtype)


if __name__ == "__main__":
  main()
