"""How a task makes what an example holds beside its input and target: a passage, an answer that was rejected.

A task of ours or of a user's files declares each by its name.  The same declaration makes the feature of a
training record and of a question that `promot infer` answers, so that a method reads one thing in both.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from promot_jax import errors
from promot_jax.data import joining, templates
from promot_jax.data.features import Feature
from promot_jax.data.vocabularies import Vocabulary

Form = Literal["plain", "inputs", "targets"]
FORMS: tuple[Form, ...] = ("plain", "inputs", "targets")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordFeature:
  """One feature: how it is made, and its kind.

  of: record -> a text (of rank 1), texts (of rank 2), or numbers of the kind's rank.
  kind: of the array that becomes of it.
  form: what belongs around the tokens of a text: nothing, what belongs around an input, or around a target,
    which is then tokenized as it goes on behind the example's input.
  """

  of: Callable[[Mapping[str, Any]], Any]
  kind: Feature = Feature()  # noqa: RUF009 (a frozen value)
  form: Form = "plain"

  def array(
    self,
    name: str,
    record: Mapping[str, Any],
    *,
    vocabulary: Vocabulary,
    after: str,
    target: templates.TargetForm = "raw",
  ) -> Any:
    """The array of one example.

    Args:
      name: of the feature, for messages.
      vocabulary: makes tokens of texts.
      after: the example's input, demonstrations included.
      target: how targets are written.

    Raises:
      DataError: the record lacks what it is made of, or holds something of another kind.
    """
    try:
      value = self.of(record)
    except errors.DataError:
      raise
    # What a function of the user's meets in a record that it does not expect.
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as cause:
      found = ", ".join(record) or "nothing"
      raise errors.DataError(
        f"feature '{name}' cannot be made of the record ({type(cause).__name__}: {cause}); it has: {found}."
      ) from cause

    def tokens(text: str) -> Sequence[int]:
      # As questions of inference are framed, line feeds at the end included.
      if self.form == "inputs":
        return list(joining.input_tokens(vocabulary, text))
      if self.form == "plain":
        return vocabulary.encode(text)
      if target == "raw":
        # In running text a word begins with the blank before it, which depends on what it follows.
        ids = joining.texts_to_tokens(vocabulary, after, text)[1]
      else:
        # The wrapping around a target is spelled with special tokens.
        ids = vocabulary.encode(templates.target_text(text, target), special_tokens=True)
      return list(vocabulary.target_frame.around(ids))

    if isinstance(value, str):
      # One text where several are declared counts as a list of one.
      value = tokens(value) if self.kind.rank < 2 else [tokens(value)]
    elif isinstance(value, Sequence) and value and all(isinstance(each, str) for each in value):
      value = [tokens(each) for each in value]
    return self.kind.array(name, value)
