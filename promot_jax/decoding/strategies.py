"""How the next tokens are chosen, as values that also tell compiled programs apart."""

import dataclasses
import math

from promot_jax import errors


@dataclasses.dataclass(frozen=True, kw_only=True)
class Greedy:
  """The most probable token at each step; of equally probable ones the lowest id."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Beam:
  """Beam search as in T5X: finished hypotheses are ranked by log p / ((5 + length) / 6)^alpha.

  `length` counts the generated tokens including EOS.  alpha = 0 ranks by log p alone and is
  `length_penalty=0` in transformers; for other values the two penalties differ, there it is
  length^length_penalty.

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


Strategy = Greedy | Beam | Sample
