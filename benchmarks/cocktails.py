"""Time of one step of a cocktail beside one of fine-tuning, on the CPU, and the same loop in transformers.

  python benchmarks/cocktails.py            a cached teacher, an asked one, theirs
  python benchmarks/cocktails.py --quick    tiny shapes: does it run, do the losses agree

All sides train the same network from the same weights on the same batches with Adafactor at one rate, and
take turns in one process.  The teacher is a second network of the student's size.  Read the ratios to the
first row: absolute times belong to the machine and to its load.
"""

import dataclasses
import functools

import side_by_side

# isort: split
import jax
import numpy as np
import torch
import transformers
from flax import nnx
from side_by_side import Case
from steps import OurStep, TheirStep

from promot_jax.training import optimizers, top_tokens
from promot_jax.training.distillation import Distillation
from promot_jax.training.objectives import Supervised

WEIGHT = 0.5
RATE = 1e-3


def main() -> None:
  flags = side_by_side.parser(__doc__, repeats="timed steps of each side")
  flags.add_argument("--tokens", type=int, default=64, help="kept of each distribution")
  flags.add_argument("--chunk", type=int, default=None, help="vocabulary chunk of our losses")
  options = flags.parse_args()
  side_by_side.start(options, repeats=8)
  for case in side_by_side.chosen_cases(options):
    compare(case, options)


def compare(case: Case, options) -> None:
  """Times all sides in turn and prints a line for each."""
  case = dataclasses.replace(case, config=dataclasses.replace(case.config, dropout_rate=0.0))
  weights, taught = (side_by_side.initial_weights(case.config) for _ in range(2))
  taught = {name: leaf[..., ::-1] for name, leaf in taught.items()}  # others, as sound
  teacher = side_by_side.our_backbone(case, taught)
  batches = [side_by_side.make_batch(case, seed) for seed in range(4)]
  kept = [beside(batch, teacher, options) for batch in batches]
  supervised = Supervised(vocabulary_chunk=options.chunk)
  cocktail = Distillation(weight=WEIGHT, supervised=supervised)

  def ours(objective, teacher=None):
    optimizer = functools.partial(optimizers.adafactor, multiply_by_parameter_scale=False)
    model = side_by_side.our_model(case, weights, None)
    return OurStep(model, ".*", optimizer, RATE, objective=objective, teacher=teacher)

  # A step donates its state, so each side has a model of its own; its teacher is shared.
  tuning, cached, asked = ours(supervised), ours(cocktail), ours(cocktail, teacher)
  theirs, their_cocktail = their_step(case, weights), their_step(case, weights, taught)
  losses = [asked(batches[0]), their_cocktail(batches[0]), tuning(batches[0]), theirs(batches[0])]
  np.testing.assert_allclose(losses[::2], losses[1::2], rtol=1e-4)
  cached(kept[0])
  sides = {
    "fine-tuning": tuning,
    f"cocktail, {options.tokens} tokens kept": lambda batch: cached(kept[index_of(batch, batches)]),
    "cocktail, teacher asked": asked,
    "transformers, fine-tuning": theirs,
    "transformers, cocktail, teacher asked": their_cocktail,
  }
  times = side_by_side.take_turns(sides, batches, repeats=options.repeats)
  print(f"{case.name}: CPU seconds of a step  min  ratio  median  ratio")
  for name in sides:
    (least, first), (median, first_median), *_ = side_by_side.best_and_median(
      times, (name, "fine-tuning")
    )
    print(
      f"  {name:<40} {least:.3f}  {least / first:.2f}  {median:.3f}  {median / first_median:.2f}",
      flush=True,
    )


def index_of(batch: dict, batches: list[dict]) -> int:
  """The place of this very batch."""
  return next(index for index, each in enumerate(batches) if each is batch)


def beside(batch: dict, teacher, options) -> dict[str, np.ndarray]:
  """The batch with what the teacher says."""
  graphdef, state = nnx.split(teacher)
  tokens, log_p = top_tokens.distributions(
    state, batch, graphdef=graphdef, count=options.tokens, temperature=1.0, chunk=options.chunk
  )
  found = {top_tokens.TOKENS: tokens, top_tokens.LOG_P: log_p}
  return {**batch, **{name: np.asarray(array) for name, array in jax.device_get(found).items()}}


class TheirCocktail(TheirStep):
  """The usual loop: a teacher without gradients, and the divergence over the whole vocabulary."""

  def __init__(self, model, optimizer, teacher):
    super().__init__(model, optimizer)
    self.teacher = teacher.eval()

  def _encoder_decoder(self, batch: dict[str, np.ndarray]) -> torch.Tensor:
    given = self._given(batch)
    with torch.no_grad():
      taught = torch.log_softmax(self.teacher(**given).logits, -1)
    log_q = torch.log_softmax(self.model(**given).logits, -1)
    weights = torch.from_numpy(batch["decoder_loss_weights"])
    targets = torch.from_numpy(batch["decoder_target_tokens"]).long()
    apart = (taught.exp() * (taught - log_q)).sum(-1)
    entropy = -log_q.gather(-1, targets[..., None])[..., 0]
    return ((WEIGHT * apart + (1 - WEIGHT) * entropy) * weights).sum() / weights.sum()


def their_step(case: Case, weights: dict, taught: dict | None = None) -> TheirStep:
  """Theirs, with transformers' Adafactor; with weights of a teacher, of a cocktail."""
  optimizer = functools.partial(
    transformers.optimization.Adafactor,
    lr=RATE,
    scale_parameter=False,
    relative_step=False,
    warmup_init=False,
  )
  model = side_by_side.torch_model(case, weights, None, use_cache=False)
  if taught is None:
    return TheirStep(model, optimizer)
  teacher = side_by_side.torch_model(case, taught, None, use_cache=False)
  return TheirCocktail(model, optimizer, teacher)


if __name__ == "__main__":
  main()
