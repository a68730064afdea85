"""A model of ours as one of lm-evaluation-harness's, which has the tasks that we do not have.

Needs the package lm_eval, so that this module is imported where it is asked for only.
"""

from lm_eval.api.model import LM

from promot_jax.inference.continuations import Continuations


class HarnessModel(LM):
  """What `lm_eval.simple_evaluate(model=...)` takes.

  Args:
    continuations: the model, and how it is asked.
    name: of the vocabulary, for the record.
  """

  def __init__(self, continuations: Continuations, *, name: str):
    super().__init__()
    self._continuations, self._name = continuations, name

  @property
  def tokenizer_name(self) -> str:
    """Tells requests apart that lm_eval keeps."""
    return self._name

  def loglikelihood(self, requests, disable_tqdm: bool = False) -> list[tuple[float, bool]]:
    """(log p, whether greedy decoding writes the same) of each (context, continuation)."""
    found = self._continuations.scored([request.args for request in requests])
    return [(each.log_p, each.greedy) for each in found]

  def loglikelihood_rolling(self, requests, disable_tqdm: bool = False) -> list[float]:
    """log p of each whole text."""
    return self._continuations.of_whole_texts([request.args[0] for request in requests])

  def generate_until(self, requests, disable_tqdm: bool = False) -> list[str]:
    """What is written after each (context, settings of generation)."""
    return self._continuations.written([request.args for request in requests])
