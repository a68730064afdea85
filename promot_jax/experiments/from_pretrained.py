"""What an evaluation plan may ask beside scores: how far a model has come from the pretrained one."""

import dataclasses

from promot_jax import limits

RECIPE_VALUES = ("FromPretrained",)

MICRO = "micro"
"""As a text: the built-in world's own, which its models were not pretrained on."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FromPretrained:
  """Two figures of the model that is reported, with its method on and off (`drift`).

  The divergence of its next tokens from the pretrained model's on the selection split of the tuned tasks, and the
  perplexity of general text.

  text: the task of whose targets the perplexity is, or 'micro', the built-in world's held-out text; None: no
    perplexity is measured.
  limit: only the first examples of each; None: all.
  vocabulary_chunk: largest number of logits a token that exist at once; None: all of them.
  """

  text: str | None = None
  limit: int | None = 512
  vocabulary_chunk: int | None = None

  def __post_init__(self):
    for name in ("limit", "vocabulary_chunk"):
      if (value := getattr(self, name)) is not None:
        limits.require_whole("FromPretrained", least=1, **{name: value})
        object.__setattr__(self, name, int(value))  # 1e3 counts as one
