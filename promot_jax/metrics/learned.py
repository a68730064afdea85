"""What the metrics that score texts by a neural model share: pairs of texts, and models to be found.

None of them is part of the base installation, and none of their weights: they are downloaded by the
libraries, or lie in a folder that is named as the model.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from promot_jax import errors
from promot_jax.metrics import metric

Pairs = Sequence[tuple[str, str]]


def best(
  targets: Sequence[Any], predictions: Sequence[Any], score: Callable[[Pairs], Sequence[float]]
) -> np.ndarray:
  """The score of every prediction with the reference that suits it best: [examples].

  Args:
    score: (reference, prediction) pairs -> numbers, higher is better.  Called once.
  """
  references = [metric.written(texts) for texts in metric.all_references(targets)]
  # All pairs at once, so that the model sees full batches.
  pairs = [
    (text, str(prediction))
    for texts, prediction in zip(references, predictions, strict=True)
    for text in texts
  ]
  scores = iter(score(pairs))
  return np.asarray([max(next(scores) for _ in texts) for texts in references], np.float64)


def loaded(load: Callable[[], Any], *, of: str, model: str) -> Any:
  """What `load` gives.

  Raises:
    ConfigError: the model is neither in a folder nor downloaded nor to be downloaded.
  """
  try:
    return load()
  # What is raised where a model is not there differs between the libraries.
  except (OSError, ValueError, KeyError) as error:
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    raise errors.ConfigError(
      f"The metric '{of}' cannot load its model '{model}' ({said}); name a folder that holds it, or "
      "run once where it can be downloaded."
    ) from None
