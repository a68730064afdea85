"""Time of greedy and beam-4 decoding, side by side with transformers (and PEFT) on torch, on the CPU.

  python benchmarks/decoding.py            both configurations, without and with a prompt
  python benchmarks/decoding.py --quick    tiny shapes: does it run, are the outputs the same

Both sides decode the same random network on the same batches.  No token ends an output, so that
both write all 32 tokens; the two beam searches are then the same, and their outputs are compared
before anything is timed.  Read the ratios: absolute times belong to the machine and to its load.
"""

import argparse
import time

import side_by_side

# isort: split
import numpy as np
import torch
from side_by_side import Case

from promot_jax.decoding.generate import generate
from promot_jax.decoding.strategies import Beam, Greedy, Strategy

NO_END = -1  # as the id of EOS: never generated
STRATEGIES: dict[str, Strategy] = {"greedy": Greedy(), "beam-4": Beam(width=4)}
# T5X at this configuration: CPU ms a batch on two shared cores (another day, other load).
T5X_ANCHOR_MS = {
  ("full", "greedy"): 470,
  ("full", "beam-4"): 1427,
  ("prompt", "greedy"): 821,
  ("prompt", "beam-4"): 2229,
}


def main() -> None:
  flags = side_by_side.parser(__doc__, repeats="timed batches of each side")
  flags.add_argument("--strategies", nargs="*", default=list(STRATEGIES))
  options = flags.parse_args()
  side_by_side.start(options, repeats=7)
  print(f"config        method  strategy |  {side_by_side.HEADINGS}  |  equal outputs")
  for case in side_by_side.chosen_cases(options):
    for method in options.methods:
      for strategy in options.strategies:
        compare(case, method, strategy, options)


def compare(case: Case, method: str, strategy: str, options: argparse.Namespace) -> None:
  """Times both sides in turn and prints one line."""
  batches = [side_by_side.make_batch(case, seed) for seed in range(3)]
  weights = side_by_side.initial_weights(case.config)
  prompt = side_by_side.initial_prompt(case) if method == "prompt" else None

  started = time.process_time()
  ours = our_decoder(case, weights, prompt, STRATEGIES[strategy])
  first = ours(batches[0])
  compile_seconds = time.process_time() - started
  theirs = their_decoder(case, weights, prompt, STRATEGIES[strategy])
  equal = (first == theirs(batches[0])).all(axis=-1).mean()
  # Near-ties are rounded differently, and one other token changes all that follow.
  if equal < 0.7:
    raise AssertionError(f"Only {equal:.0%} of the outputs of {case.name} are the same.")

  sides = {"ours": ours, "theirs": theirs}
  times = side_by_side.take_turns(sides, batches, repeats=options.repeats)
  label = f"{case.name:<13} {method:<7} {strategy:<8}"
  print(f"{label} |  {side_by_side.cells(times, compile_seconds)}  |  {equal:.0%}", flush=True)
  if case.name == "anchor":
    best = min(cpu for cpu, _ in times["ours"])
    quoted = T5X_ANCHOR_MS[method, strategy]
    print(f"  T5X was measured at {quoted} ms CPU a batch here; ours at least {1000 * best:.0f} ms")


def our_decoder(case: Case, weights: dict, prompt: np.ndarray | None, strategy: Strategy):
  """decode(batch) -> the best output of each example, [B T]."""
  model = side_by_side.our_model(case, weights, prompt)

  def run(batch) -> np.ndarray:
    result = generate(model, batch, strategy=strategy, max_length=case.targets, eos=NO_END)
    return np.asarray(result.tokens[:, 0])

  return run


def their_decoder(case: Case, weights: dict, prompt: np.ndarray | None, strategy: Strategy):
  """decode(batch) -> the best output of each example, [B T]."""
  model = side_by_side.torch_model(case, weights, prompt, use_cache=True).eval()
  backbone = model if prompt is None else model.base_model
  backbone.generation_config.eos_token_id = None
  beams = strategy.width if isinstance(strategy, Beam) else 1

  def run(batch) -> np.ndarray:
    inputs = torch.from_numpy(batch["encoder_input_tokens"]).long()
    with torch.inference_mode():
      tokens = model.generate(
        input_ids=inputs,
        attention_mask=(inputs > 0).long(),
        max_new_tokens=case.targets,
        num_beams=beams,
        do_sample=False,
      )
    return tokens[:, 1:].numpy()  # the first is the start token

  return run


if __name__ == "__main__":
  main()
