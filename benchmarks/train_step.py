"""Time of one training step, side by side with transformers (and PEFT) on torch, on the CPU.

  python benchmarks/train_step.py            both configurations, full fine-tuning and prompt tuning
  python benchmarks/train_step.py --quick    tiny shapes: does it run, do the losses agree

Both sides train the same network from the same weights on the same batches with Adafactor at the
same fixed rate; the losses of the first steps are compared before anything is timed.  Read the
ratios: absolute times belong to the machine and to its load.
"""

import argparse
import dataclasses
import functools
import time

import side_by_side

# isort: split
import jax
import numpy as np
import transformers
from side_by_side import Case
from steps import OurStep, TheirStep

from promot_jax.training import optimizers

RATES = {"full": 1e-3, "prompt": 0.3}
# T5X at this configuration: step CPU ms on two shared cores, dropout 0 (another day, other load).
T5X_ANCHOR_MS = {
  ("full", 0.0): 1117,
  ("prompt", 0.0): 935,
  ("full", 0.1): 892,
  ("prompt", 0.1): 1032,
}


def main() -> None:
  flags = side_by_side.parser(__doc__, repeats="timed steps of each side")
  flags.add_argument("--dropout", nargs="*", type=float, default=[0.0])
  flags.add_argument("--chunk", type=int, default=None, help="vocabulary chunk of our loss")
  options = flags.parse_args()
  side_by_side.start(options, repeats=10)
  print(f"config        method  dropout  |  {side_by_side.HEADINGS}")
  for case in side_by_side.chosen_cases(options):
    for method in options.methods:
      for dropout in options.dropout:
        compare(case, method, dropout, options)


def compare(case: Case, method: str, dropout: float, options: argparse.Namespace) -> None:
  """Times both sides in turn and prints one line."""
  case = dataclasses.replace(case, config=dataclasses.replace(case.config, dropout_rate=dropout))
  batches = [side_by_side.make_batch(case, seed) for seed in range(4)]
  weights = side_by_side.initial_weights(case.config)
  prompt = side_by_side.initial_prompt(case) if method == "prompt" else None

  started = time.process_time()
  ours = our_step(case, weights, prompt, options.chunk)
  losses = [ours(batches[0])]
  compile_seconds = time.process_time() - started
  theirs = their_step(case, weights, prompt)
  their_losses = [theirs(batches[0])]
  losses.append(ours(batches[1]))
  their_losses.append(theirs(batches[1]))
  if dropout == 0.0:
    # The second loss has seen one update of each optimizer.
    np.testing.assert_allclose(losses[0], their_losses[0], rtol=2e-5)
    np.testing.assert_allclose(losses[1], their_losses[1], rtol=2e-3)

  sides = {"ours": ours, "theirs": theirs}
  times = side_by_side.take_turns(sides, batches, repeats=options.repeats)
  label = f"{case.name:<13} {method:<7} {dropout:<7}"
  print(f"{label}  |  {side_by_side.cells(times, compile_seconds)}", flush=True)
  if case.name == "anchor" and (method, dropout) in T5X_ANCHOR_MS:
    best = min(cpu for cpu, _ in times["ours"])
    quoted = T5X_ANCHOR_MS[method, dropout]
    print(f"  T5X was measured at {quoted} ms CPU a step here; ours at least {1000 * best:.0f} ms")


def our_step(case: Case, weights: dict, prompt: np.ndarray | None, chunk: int | None) -> OurStep:
  """Ours, with Adafactor."""
  method = "full" if prompt is None else "prompt"
  return OurStep(
    side_by_side.our_model(case, weights, prompt),
    ".*" if prompt is None else ".*/prompt/.*",
    functools.partial(optimizers.adafactor, multiply_by_parameter_scale=False),
    RATES[method],
    chunk=chunk,
    key=jax.random.key(0) if case.config.dropout_rate else None,
  )


def their_step(case: Case, weights: dict, prompt: np.ndarray | None) -> TheirStep:
  """Theirs, with transformers' Adafactor."""
  optimizer = functools.partial(
    transformers.optimization.Adafactor,
    lr=RATES["full" if prompt is None else "prompt"],
    scale_parameter=False,
    relative_step=False,
    warmup_init=False,
  )
  return TheirStep(side_by_side.torch_model(case, weights, prompt, use_cache=False), optimizer)


if __name__ == "__main__":
  main()
