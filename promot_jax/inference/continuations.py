"""How probable a model finds texts that go on from others, and how it goes on itself.

This is what tasks of lm-evaluation-harness ask.  Texts are cut into tokens as the harness does it: of a
decoder-only model context and continuation are one text, cut where the context's tokens end; of an
encoder-decoder they are two, and a continuation has no end of sequence.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from flax import nnx

from promot_jax.data import joining
from promot_jax.data.templates import BLANK
from promot_jax.decoding.strategies import Greedy, Sample, Strategy
from promot_jax.errors import ConfigError, DataError
from promot_jax.inference import answering
from promot_jax.inference.answering import Form, Place, Scored

_KNOWN = ("until", "max_gen_toks", "do_sample", "temperature", "top_k", "top_p")
"""What a task may say of generation."""

Tokens = Sequence[int] | np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Continuations:
  """A model that is asked for them.

  form: how it is asked; its strategy, its stops and the longest answer are defaults.
  model: with its method attached or detached, as wanted.
  place: puts a host batch onto the devices.
  """

  form: Form
  model: nnx.Module
  place: Place

  def scored(self, pairs: Sequence[tuple[str, str]]) -> list[Scored]:
    """How probable each (context, continuation) is.

    A context that is too long loses its beginning.

    Raises:
      DataError: a continuation is longer than the model's evaluation plan has room for.
    """
    return self._of_tokens([self._tokens(*pair) for pair in pairs])

  def of_whole_texts(self, texts: Sequence[str]) -> list[float]:
    """log p of each text, of which every token is predicted once and nothing else is.

    Neither a token that begins texts nor one that ends them is part of a text.  A text longer than the model
    reads is predicted in parts (`windows`).
    """
    pairs, owners = [], []
    for number, text in enumerate(texts):
      tokens = self.form.vocabulary.encode(text)
      for context, continuation in windows(tokens, first=self._first, room=self._room):
        read = context if self._reads_on else context[-self.form.longest_input :]
        pairs.append((np.asarray(read, np.int32), np.asarray(continuation, np.int32)))
        owners.append(number)
    totals = np.zeros(len(texts))
    np.add.at(totals, owners, [found.log_p for found in self._of_tokens(pairs)])
    return totals.tolist()

  def written(self, asked: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """What is written after each (context, how), up to the first of the texts of `until`.

    Raises:
      ConfigError: a setting of generation is not known here.
    """
    groups: dict[str, list[int]] = {}
    for number, (_, how) in enumerate(asked):
      groups.setdefault(repr(sorted(how.items())), []).append(number)
    answers = [""] * len(asked)
    for members in groups.values():
      form = self._form_for(asked[members[0]][1])
      frame = form.vocabulary.input_frame
      inputs = [
        frame.cut(tokens, form.longest_input, at="start")
        for tokens in answering.encode(form, [asked[number][0] for number in members])
      ]
      found = answering.answer(form, self.model, inputs, place=self.place, first=members[0])
      for number, (text, _) in zip(members, found, strict=True):
        answers[number] = text
    return answers

  @property
  def _reads_on(self) -> bool:
    """Whether an answer goes on with the input, in the same rows of tokens."""
    return self.form.special.decoder_start is None

  @property
  def _first(self) -> int:
    """The token after which a text without context begins."""
    words = self.form.vocabulary
    return words.eos if words.bos is None else words.bos

  @property
  def _room(self) -> int:
    """The longest continuation, after one token."""
    form = self.form
    return form.longest_answer + (form.longest_input - 1 if self._reads_on else 0)

  def _tokens(self, context: str, continuation: str) -> tuple[np.ndarray, np.ndarray]:
    words = self.form.vocabulary
    if words.joining.one_text:
      before, after = joining.cut(words.encode, context, continuation)
    else:
      # The blank between the two belongs to neither, as in what such a model was tuned on.
      before = words.encode(context.rstrip())
      after = words.encode((context[len(context.rstrip()) :] + continuation).removeprefix(BLANK))
    inputs = words.input_frame.around(before)
    if not len(inputs):
      inputs = np.asarray([self._first], np.int32)
    if len(after) > self._room:
      raise DataError(
        f"A continuation has {len(after)} tokens, and this model's evaluation plan has room for {self._room}; raise"
        " EvaluationPlan.feature_lengths."
      )
    room = self.form.longest_input
    if self._reads_on:
      room += self.form.longest_answer - len(after)
    return words.input_frame.cut(inputs, room, at="start"), np.asarray(after, np.int32)

  def _of_tokens(self, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[Scored]:
    if not pairs:
      return []
    inputs, targets = zip(*pairs, strict=True)
    return answering.of_answers(self.form, self.model, inputs, targets, place=self.place)

  def _form_for(self, how: Mapping[str, Any]) -> Form:
    """The form in which a text is wanted.

    Raises:
      ConfigError: it is asked for in a way that is not known here.
    """
    if unknown := [name for name in how if name not in _KNOWN]:
      raise ConfigError(
        f"A task of lm_eval asks for generation with {unknown[0]}={how[unknown[0]]!r}; known are"
        f" {', '.join(_KNOWN)}."
      )
    until = how.get("until") or ()
    strategy: Strategy = Greedy()
    # A temperature alone asks for draws, too, and one of 0 for none.
    temperature = float(how.get("temperature", 1.0 if how.get("do_sample") else 0.0))
    if how.get("do_sample", True) and temperature > 0:
      strategy = Sample(
        temperature=temperature,
        top_k=int(how.get("top_k", 0)),
        top_p=float(how.get("top_p", 1.0)),
      )
    return dataclasses.replace(
      self.form,
      strategy=strategy,
      stop=(until,) if isinstance(until, str) else tuple(until),
      # Blanks are part of a text that goes on, of code above all; an encoder-decoder may write between sentinels.
      clean=str if self._reads_on else self.form.clean,
      longest_answer=int(how.get("max_gen_toks", self.form.longest_answer)),
    )


def windows(tokens: Tokens, *, first: int, room: int) -> Iterator[tuple[list[int], list[int]]]:
  """(context, continuation) of the parts in which a long text is predicted, every token once.

      tokens 0 1 2 3 4 5 6 7 8 9, room 4:   first | 0 1 2 3     3 | 4 5 6 7     5 6 7 | 8 9

  Args:
    first: stands before the text.
    room: tokens of the longest continuation, whose context is one token; a shorter one has more.
  """
  read = [first, *map(int, tokens)]
  for start in range(1, len(read), room):
    part = read[start : start + room]
    yield read[max(0, start - 1 - room + len(part)) : start], part
