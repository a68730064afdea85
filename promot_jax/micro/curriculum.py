"""What pretraining shows, and when: phases as data."""

import dataclasses
from collections.abc import Mapping

RECIPE_VALUES = ("Phase",)

TEXT = "text"  # span corruption of running text
INFERENCE = "inference"  # which connective stands between two sentences

# RTE and SNLI are missing: the model must not have met what it is tuned on.
MIXTURE: Mapping[str, float] = {
  TEXT: 0.14,
  INFERENCE: 0.08,
  "cb": 0.06,
  "wic": 0.12,
  "trivia_qa": 0.12,
  "web_questions": 0.12,
  "wmt14_en_fr": 0.06,
  "wmt16_en_de": 0.09,
  "wmt16_en_ro": 0.09,
  "xsum": 0.05,
  "wiki_lingua": 0.05,
  "openbookqa": 0.02,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase:
  """A number of training steps with one mixture.

  Attributes:
    steps: training steps.
    shots: weight of each number of demonstrations.  One number is drawn for a whole batch, so that
      a batch has few pads and there are few shapes; of the decoder-only model for each example.
    batch_size: examples per step, by number of demonstrations; rows of the decoder-only model hold
      several, and there are DECODER_ROWS of them.
    mixture: weight of each source of examples: a task, TEXT or INFERENCE.  The latter two have no
      demonstrations.
  """

  steps: int
  shots: Mapping[int, float]
  batch_size: Mapping[int, int] = dataclasses.field(default_factory=dict)
  mixture: Mapping[str, float] = dataclasses.field(default_factory=lambda: dict(MIXTURE))


# First without demonstrations: from the start with both, small models fail.
CURRICULUM = (
  Phase(steps=1500, shots={0: 1.0}, batch_size={0: 128}),
  Phase(
    steps=3000,
    shots={0: 0.3, 1: 0.45, 2: 0.1, 4: 0.15},
    batch_size={0: 128, 1: 64, 2: 48, 4: 32},
  ),
)

# Of the decoder-only model, with less text: all of its tokens are learned, of an episode only the answers.
_DECODER_MIXTURE = {**MIXTURE, TEXT: 0.08, INFERENCE: 0.05}
DECODER_CURRICULUM = (
  Phase(steps=250, shots={0: 0.7, 1: 0.3}, mixture=_DECODER_MIXTURE),
  Phase(steps=750, shots={0: 0.25, 1: 0.5, 2: 0.1, 4: 0.15}, mixture=_DECODER_MIXTURE),
)
DECODER_ROWS = 24
DECODER_LENGTH = 96
"""Tokens of a row."""
