"""Examples a second of a whole evaluation, side by side with transformers' `generate` on torch, on the CPU.

  python benchmarks/evaluation.py            the tasks of a recipe with its pretrained model, and the anchor
  python benchmarks/evaluation.py --quick    few examples: does it run, are the outputs the same

Ours is what `promot eval` does when data are read: batches, beam search, texts, metrics, the journal and the files
of results.  Theirs is `generate` alone: the same examples in batches of as many, sorted by length and each padded to
its longest, and tokens back as numbers.  Both search with four beams by transformers' rules, and their outputs
are compared before anything is timed.  The sides take turns; the ratio is our time of one turn by theirs.
"""

import argparse
import dataclasses
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import side_by_side

# isort: split
import numpy as np
import torch

from promot_jax.cli import gin_config
from promot_jax.data.examples import Examples
from promot_jax.data.length_report import LengthReport
from promot_jax.decoding.strategies import TransformersBeam
from promot_jax.evaluation import evaluator
from promot_jax.evaluation.evaluator import Batching, EvalTask, Kept, Progress, Setting, Subject
from promot_jax.evaluation.results import ResultStore
from promot_jax.experiments import data
from promot_jax.experiments.checkpoint import Checkpoint
from promot_jax.experiments.comparison import experiments_of
from promot_jax.experiments.reader import decoder
from promot_jax.experiments.session import Session
from promot_jax.metrics import exact_match
from promot_jax.paths import named_leaves
from promot_jax.signals import Stop
from promot_jax.token_ids import TokenIds
from promot_jax.training.events import Events

BEAMS = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
  """What both sides evaluate.

  model: ours; `case` has its configuration.
  decode: token ids -> text.
  """

  case: side_by_side.Case
  model: Any
  tasks: Sequence[EvalTask]
  decode: Callable[[Sequence[int]], str]


def main() -> None:
  flags = side_by_side.parser(__doc__, repeats="timed evaluations of each side")
  flags.add_argument("--gin_file", default="promot_rte_micro.gin")
  flags.add_argument("--examples", type=int, default=None, help="of each task; all without it")
  options = flags.parse_args()
  side_by_side.start(options, repeats=5)
  print(
    "config        examples |  examples/s median: ours  theirs  |  time of each turn, ours / theirs: median  least  most"
    "  |  equal outputs  |  tokens computed for each needed one  |  first evaluation, s"
  )
  known = {"recipe": of_recipe} if options.quick else {"recipe": of_recipe, "anchor": of_anchor}
  for name, make in known.items():
    if not options.case or name in options.case:
      compare(name, make(options), options)


def of_recipe(options: argparse.Namespace) -> Work:
  """The pretrained model of the recipe's first experiment on the tasks of its plan."""
  experiment = experiments_of(gin_config.build(gin_config.read([options.gin_file], [])))[0]
  limit = options.examples or (16 if options.quick else None)
  experiment = dataclasses.replace(
    experiment, evaluation=dataclasses.replace(experiment.evaluation, limit=limit)
  )
  session = Session(stop=Stop(), console=Events())
  pretrained = Checkpoint(name="pretrained", start=experiment.start)
  tasks = data.report_tasks(experiment, session.reader, checkpoint=pretrained)
  case = side_by_side.Case(
    name="recipe",
    config=experiment.backbone,
    batch=experiment.evaluation.batch_size,
    targets=experiment.evaluation.feature_lengths["targets"],
  )
  return Work(
    case=case, model=session.pretrained(experiment), tasks=tasks, decode=decoder(experiment)
  )


def of_anchor(options: argparse.Namespace) -> Work:
  """A random network of the anchor's size on inputs of 16 to 128 tokens."""
  case, draw = side_by_side.ANCHOR, np.random.default_rng(0).integers
  count = options.examples or 96
  lengths = draw(16, case.inputs + 1, count)
  examples = Examples(
    name="random",
    split="",
    features={
      "inputs": [draw(3, case.config.vocab_size, n).astype(np.int32) for n in lengths],
      "targets": [draw(3, case.config.vocab_size, 4).astype(np.int32) for _ in lengths],
      "prompt_ids": np.zeros(count, np.int32),
    },
    records=[{}] * count,
    lengths=LengthReport(examples=count, inputs_limit=None, targets_limit=None),
  )
  task = EvalTask(label="random", shots=0, examples=examples, metric_fns=[exact_match.exact_match])
  model = side_by_side.our_backbone(case, side_by_side.initial_weights(case.config))
  return Work(
    case=case, model=model, tasks=[task], decode=lambda ids: " ".join(map(str, map(int, ids)))
  )


def compare(name: str, work: Work, options: argparse.Namespace) -> None:
  """Times both sides in turn and prints one line."""
  weights = {path: np.asarray(leaf) for path, leaf in named_leaves(work.model).items()}
  theirs = side_by_side.torch_backbone(work.case, weights, use_cache=True).eval()
  started = time.perf_counter()
  texts, tokens = our_evaluation(work)
  first = time.perf_counter() - started
  expected = [work.decode(ids) for ids in their_outputs(work, theirs)]
  equal = np.mean([mine == other for mine, other in zip(texts, expected, strict=True)])
  # Near-ties are rounded differently, and one other token changes all that follow.
  if equal < 0.9:
    raise AssertionError(f"Only {equal:.0%} of the outputs are the same.")
  sides = {"ours": lambda _: our_evaluation(work), "theirs": lambda _: their_outputs(work, theirs)}
  times = side_by_side.take_turns(sides, [{}], repeats=options.repeats)
  seconds = {side: [wall for _, wall in times[side]] for side in sides}
  ratios = [mine / other for mine, other in zip(seconds["ours"], seconds["theirs"], strict=True)]
  rates = [len(texts) / statistics.median(seconds[side]) for side in sides]
  print(
    f"{name:<13} {len(texts):>8} |  {rates[0]:.1f}  {rates[1]:.1f}  |  {statistics.median(ratios):.2f}"
    f"  {min(ratios):.2f}  {max(ratios):.2f}  |  {equal:.1%}  |  {tokens.ratio:.2f}  |  {first:.1f}"
    f"  (load {os.getloadavg()[0]:.1f})",
    flush=True,
  )


def our_evaluation(work: Work) -> tuple[list[str], evaluator.Tokens]:
  """(outputs of all examples in the tasks' order, tokens); the files are written and thrown away."""
  states: list[Progress] = []
  with tempfile.TemporaryDirectory() as folder:
    store = ResultStore(folder)
    results = evaluator.evaluate(
      Subject(make=lambda: work.model, decode=work.decode),
      work.tasks,
      setting=Setting(
        special=TokenIds.of(work.case.config),
        strategy=TransformersBeam(width=BEAMS),
        max_target_length=work.case.targets,
      ),
      batching=Batching(batch_size=work.case.batch, buckets=4),
      kept=Kept(store=store, checkpoint="model"),
      progress=states.append,
    )
    found = [each.raw for result in results for each in store.predictions("model", result)]
  return found, states[-1].tokens


def their_outputs(work: Work, model: Any) -> list[list[int]]:
  """Tokens of all outputs in the tasks' order, without start, end and padding."""
  inputs = [np.asarray(tokens) for task in work.tasks for tokens in task.examples.inputs]
  lengths = [
    task.max_target_length or work.case.targets for task in work.tasks for _ in task.examples.inputs
  ]
  special = TokenIds.of(work.case.config)
  outputs: list[list[int]] = [[] for _ in inputs]
  # By the longest output first, as a call of `generate` has one; then by length, so that little is padded.
  order = sorted(range(len(inputs)), key=lambda number: (lengths[number], len(inputs[number])))
  for longest in sorted(set(lengths)):
    members = [number for number in order if lengths[number] == longest]
    for begin in range(0, len(members), work.case.batch):
      rows = members[begin : begin + work.case.batch]
      width = max(len(inputs[number]) for number in rows)
      ids = np.full((len(rows), width), special.pad, np.int64)
      mask = np.zeros((len(rows), width), np.int64)
      for row, number in enumerate(rows):
        ids[row, : len(inputs[number])] = inputs[number]
        mask[row, : len(inputs[number])] = 1
      with torch.inference_mode():
        written = model.generate(
          input_ids=torch.from_numpy(ids),
          attention_mask=torch.from_numpy(mask),
          max_new_tokens=longest,
          num_beams=BEAMS,
          do_sample=False,
        )
      for number, tokens in zip(rows, written[:, 1:].numpy(), strict=True):
        outputs[number] = special.before_end(tokens)
  return outputs


if __name__ == "__main__":
  main()
