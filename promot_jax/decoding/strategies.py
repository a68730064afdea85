"""How the next tokens are chosen, as values that also tell compiled programs apart."""

import dataclasses
import math

from promot_jax import errors

RECIPE_VALUES = ("Greedy", "Beam", "TransformersBeam", "Sample")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Greedy:
  """The most probable token at each step; of equally probable ones the lowest id."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Beam:
  """Beam search as in T5X: finished hypotheses are ranked by log p / ((5 + length) / 6)^alpha.

  `length` counts the generated tokens including EOS.  alpha = 0 ranks by log p alone.  Outputs that
  shall be those of transformers' `generate` need `TransformersBeam`: its penalty differs and so
  does what may end.

  Attributes:
    width: beams that are kept, and hypotheses that are returned.
    alpha: strength of the brevity penalty; larger favors longer outputs.
  """

  width: int = 4
  alpha: float = 0.6

  def __post_init__(self):
    if self.width < 1:
      raise errors.ConfigError(f"Beam.width is {self.width}; it must be at least 1.")
    if not (math.isfinite(self.alpha) and self.alpha >= 0):
      raise errors.ConfigError(f"Beam.alpha is {self.alpha}; it must be 0 or larger.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformersBeam:
  """Beam search as in transformers' `generate`, whose published figures depend on its rules.

  Its arguments have the names that they have there: num_beams is `width`, length_penalty and
  early_stopping are the same, max_new_tokens is `max_length` of our `generate`.

    rank:     log p / length^length_penalty, where `length` counts the generated tokens, EOS and
              forced tokens included and the decoder's start token excluded
    Beam's:   log p / ((5 + length) / 6)^alpha

  The two agree for length_penalty = alpha = 0 only.  For long outputs the ratio of the penalties of
  two lengths is about the same for length_penalty = alpha, so alpha is where to start a search.
  Only the `width` best candidates of a step may end, and hypotheses of the greatest length compete
  as if they had ended (BART's do: its last token is forced).

  Attributes:
    width: beams that are kept, and hypotheses that are returned.
    length_penalty: above 0 favors longer outputs, below 0 shorter ones.
    early_stopping: True: an example is done once `width` hypotheses have ended; False: once the best
      living one, ranked by its present length, is worse than all of them; 'never': once it could
      not win at the most favorable length either.
  """

  width: int = 4
  length_penalty: float = 1.0
  early_stopping: bool | str = False

  def __post_init__(self):
    if self.width < 1:
      raise errors.ConfigError(f"TransformersBeam.width is {self.width}; it must be at least 1.")
    if not math.isfinite(self.length_penalty):
      raise errors.ConfigError(
        f"TransformersBeam.length_penalty is {self.length_penalty}; it must be a finite number."
      )
    if self.early_stopping not in (True, False, "never"):
      raise errors.ConfigError(
        f"TransformersBeam.early_stopping is {self.early_stopping!r}; it must be True, False or"
        " 'never'."
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
  """Random tokens: the logits are divided by the temperature, then cut to top-k, then to top-p.

  Attributes:
    temperature: above 0; below 1 sharpens the distribution.
    top_k: only the k most probable tokens (and those that tie with the k-th); 0: all.
    top_p: only the fewest most probable tokens whose probabilities reach p; 1: all.
    samples: independent outputs of each example, returned most probable first.
  """

  temperature: float = 1.0
  top_k: int = 0
  top_p: float = 1.0
  samples: int = 1

  def __post_init__(self):
    if not (math.isfinite(self.temperature) and self.temperature > 0):
      raise errors.ConfigError(
        f"Sample.temperature is {self.temperature}; it must be above 0 (Greedy() is the limit at 0)."
      )
    if self.top_k < 0:
      raise errors.ConfigError(f"Sample.top_k is {self.top_k}; it must be 0 (all) or positive.")
    if not 0 < self.top_p <= 1:
      raise errors.ConfigError(f"Sample.top_p is {self.top_p}; it must be in (0, 1].")
    if self.samples < 1:
      raise errors.ConfigError(f"Sample.samples is {self.samples}; it must be at least 1.")


Strategy = Greedy | Beam | TransformersBeam | Sample
