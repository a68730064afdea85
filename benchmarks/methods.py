"""What every tuning method costs: time and memory of a training step, and the same beside PEFT.

  python benchmarks/methods.py                        all tables: T5 1.1 small's and GPT-2 small's size
  python benchmarks/methods.py --quick                tiny shapes: does it run, do the losses agree
  python benchmarks/methods.py --case anchor --methods full lora --tables cost

The first table compares all methods with full fine-tuning, the second one prompt, prefix and LoRA
with PEFT's (on torch), from the same values on the same batches; losses are compared before anything
is timed.  Compiled memory is what XLA says that a step's program needs: it belongs to the program alone
and does not depend on the load.  Rows are Markdown.  Read the ratios: absolute times belong to the machine and to its load.
"""

import argparse
import time

import side_by_side

# isort: split
import numpy as np
import resident_memory
import tuned_models
from side_by_side import Case
from steps import OurStep

from promot_jax import paths

FULL = tuned_models.FULL
MEGA = 1e6


def main() -> None:
  flags = side_by_side.parser(__doc__, repeats="timed steps of each method and side")
  flags.add_argument("--tables", nargs="*", default=["cost", "peft"], choices=["cost", "peft"])
  flags.add_argument(
    "--resident", action="store_true", help="peak resident memory too, a process for each method"
  )
  flags.set_defaults(methods=None)
  options = flags.parse_args()
  side_by_side.start(options, repeats=5)
  cases = side_by_side.chosen_cases(
    options,
    cases=(side_by_side.ANCHOR, side_by_side.SMALL, side_by_side.GPT2),
    quick=(side_by_side.QUICK, side_by_side.QUICK_GPT2),
  )
  if not options.case and not options.quick:
    cases = [case for case in cases if case is not side_by_side.ANCHOR]
  tables = {"cost": cost_table, "peft": peft_table}
  for table in options.tables:
    tables[table](cases, options)


def cost_table(cases: list[Case], options: argparse.Namespace) -> None:
  """Every method of ours; ratios are to full fine-tuning of the same network."""
  _head(
    "network", "method", "trained", "moments, MB", "CPU min", "ratio", "CPU median", "ratio",
    "wall min", "ratio", "compiled, MB", "ratio", "resident, MB", "ratio",
  )  # fmt: skip
  for case in cases:
    weights = side_by_side.initial_weights(case.config)
    batches = [side_by_side.make_batch(case, seed) for seed in range(4)]
    chosen = {
      name: method
      for name, method in tuned_models.methods(case).items()
      if name == FULL or not options.methods or name in options.methods
    }
    steps = {name: tuned_models.our_step(case, weights, chosen[name]) for name in chosen}
    memory = {name: _compiled_memory(step, batches[0]) for name, step in steps.items()}
    for step in steps.values():
      step(batches[0])
    times = side_by_side.take_turns(steps, batches, repeats=options.repeats)
    sizes = {
      name: (paths.count(step.state.trainable), _moments(step)) for name, step in steps.items()
    }
    backbone = sum(leaf.size for leaf in weights.values())
    del steps
    resident = {name: _resident(case, name, "ours", options) for name in chosen}
    for name, (trained, moments) in sizes.items():
      least, median, wall, _ = side_by_side.best_and_median(times, (name, FULL))
      print(
        _row(
          case.name,
          name,
          f"{100 * trained / backbone:.3g} %",
          f"{moments / MEGA:.3g}",
          *_with_ratio(least, "{:.3f}"),
          *_with_ratio(median, "{:.3f}"),
          *_with_ratio(wall, "{:.3f}"),
          *_with_ratio((memory[name], memory[FULL]), "{:.0f}", MEGA),
          *_with_ratio((resident[name], resident[FULL]), "{:.0f}", MEGA),
        ),
        flush=True,
      )


def peft_table(cases: list[Case], options: argparse.Namespace) -> None:
  """Ours / theirs."""
  _head(
    "network", "method", "CPU min: ours / PEFT", "ratio", "CPU median: ours / PEFT", "ratio",
    "wall min: ours / PEFT", "ratio", "first call, CPU", "resident, MB: ours / PEFT", "ratio",
  )  # fmt: skip
  for case in cases:
    weights = side_by_side.initial_weights(case.config)
    for name in tuned_models.same_works(case):
      if not options.methods or name in options.methods:
        print(_beside_peft(case, weights, name, options), flush=True)


def _beside_peft(case: Case, weights: dict, name: str, options: argparse.Namespace) -> str:
  batches = [side_by_side.make_batch(case, seed) for seed in range(4)]
  ours, theirs = tuned_models.pair(case, weights, name)
  started = time.process_time()
  first = ours(batches[0])
  compile_seconds = time.process_time() - started
  np.testing.assert_allclose(first, theirs(batches[0]), rtol=5e-5)
  second = ours(batches[1]), theirs(batches[1])
  if tuned_models.same_parameters(case, name):
    # One update of Adam, whose first step is the sign of the gradient, is in it.
    np.testing.assert_allclose(*second, rtol=5e-3)
  times = side_by_side.take_turns(
    {"ours": ours, "theirs": theirs}, batches, repeats=options.repeats
  )
  del ours, theirs
  memory = [_resident(case, name, side, options) for side in ("same_work", "theirs")]
  least, median, wall, _ = side_by_side.best_and_median(times)
  return _row(
    case.name,
    name,
    *_both(least, "{:.3f}"),
    *_both(median, "{:.3f}"),
    *_both(wall, "{:.3f}"),
    f"{compile_seconds:.1f}",
    *_both(memory, "{:.0f}", MEGA),
  )


def _moments(step: OurStep) -> int:
  """Bytes of the optimizer's state."""
  return paths.nbytes(step.state.opt_state)


def _compiled_memory(step: OurStep, batch: dict) -> int:
  """Compiles the step: bytes of arguments, results and temporary buffers, what they share once."""
  sizes = step.compile(batch).memory_analysis()
  return (
    sizes.argument_size_in_bytes
    + sizes.output_size_in_bytes
    - sizes.alias_size_in_bytes
    + sizes.temp_size_in_bytes
  )


def _resident(case: Case, name: str, side: str, options: argparse.Namespace) -> int:
  """Bytes; 0: not measured."""
  if not options.resident:
    return 0
  return resident_memory.measure(case.name, name, side, threads=options.threads)


def _head(*columns: str) -> None:
  print("\n" + _row(*columns) + "\n" + _row(*["---"] * len(columns)))


def _row(*cells: str) -> str:
  return f"| {' | '.join(cells)} |"


def _with_ratio(values, form: str, unit: float = 1.0) -> tuple[str, str]:
  """(the first one, its ratio to the second one)."""
  return (form.format(values[0] / unit), _ratio(values)) if values[1] else ("", "")


def _both(values, form: str, unit: float = 1.0) -> tuple[str, str]:
  """(both, their ratio)."""
  both = " / ".join(form.format(value / unit) for value in values)
  return (both, _ratio(values)) if values[1] else ("", "")


def _ratio(values) -> str:
  return f"{values[0] / values[1]:.2f}"


if __name__ == "__main__":
  main()
