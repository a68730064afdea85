"""Token ids of a few words, for recipes that start a prompt or prefix from real text."""

from promot_jax.data.vocabularies import open_vocabulary, reference
from promot_jax.errors import ConfigError
from promot_jax.micro.vocabulary import vocabulary as micro_vocabulary

RECIPE_VALUES = ("token_ids",)


def token_ids(text: str, *, vocabulary: str = "t5", source: str = "tfds") -> tuple[int, ...]:
  """Ids of a text without end of sequence, in the vocabulary of an experiment.

  Args:
    text: such as "summarization".
    vocabulary, source: as those of the experiment.

  Raises:
    ConfigError: the vocabulary cannot be opened, or the text has no token.
  """
  # As the reader of examples chooses: ids of another vocabulary would name other embeddings.
  if source == "micro" and reference(vocabulary) is None:
    ids = micro_vocabulary().encode(text)
  else:
    ids = open_vocabulary(vocabulary).encode(text)
  if not ids:
    raise ConfigError(f"The text {text!r} has no token in vocabulary '{vocabulary}'; give words.")
  return tuple(ids)
