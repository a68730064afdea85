"""A training split whose examples are read, rendered and tokenized when a batch has them, and not kept.

A split of many gigabytes is never held in memory, nor in the cache of tokenized splits, and need not be gone
through before the first batch.  Its records have numbers (`record_files`), and an example is made of its
record alone, so that a batch is the same after any restart and in any process.  A record that cannot be used
keeps its number: its row of a batch has no target and weighs nothing.  TensorFlow is not imported for it.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from promot_jax import errors, identity
from promot_jax.data import frames, joining, split_reader, templates
from promot_jax.data.examples import Examples
from promot_jax.data.features import Feature
from promot_jax.data.length_report import LengthReport
from promot_jax.data.task import Task
from promot_jax.data.vocabularies import Vocabulary

_SAMPLE = 512  # records that tell how long examples are, and which texts they become
_SIDES: tuple[frames.Side, ...] = ("inputs", "targets")


class NumberedRecords(Protocol):
  """The records of a split, each read when it is asked for.

  content: digest of all of them.
  problem: what is known to be wrong with some of them; empty: nothing.
  """

  @property
  def content(self) -> str: ...
  @property
  def problem(self) -> str: ...
  def __len__(self) -> int: ...
  def record(self, number: int) -> Mapping[str, Any] | None: ...


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Stream:
  """A split as `Examples` has it, with `select` in place of arrays.

  Attributes:
    name: registered name of the task.
    split: its split.
    records: what the examples are made of.
    task: renders them.
    vocabulary: tokenizes them.
    limits: most `inputs` and `targets` in tokens, as for `examples.load_examples`.
    cut: which end of a long input is dropped.
    target_form: raw or sentinel-wrapped targets.
    malformed, empty_targets: what to do about records that cannot be used.
    report: told how many were left out.

  Raises:
    ConfigError: a limit is too small.
    DataError: there are records that have to be refused, as far as that is known unread.
  """

  name: str
  split: str
  records: NumberedRecords
  task: Task
  vocabulary: Vocabulary
  limits: Mapping[str, int]
  cut: Literal["start", "end"] = "end"
  target_form: templates.TargetForm = "raw"
  malformed: Literal["refuse", "skip"] = "refuse"
  empty_targets: Literal["refuse", "skip", "keep"] = "refuse"
  report: Callable[[str], None] = lambda line: None

  kinds: ClassVar[Mapping[str, Feature]] = {}
  extents: ClassVar[Mapping[str, tuple[int, ...]]] = {}
  prompt_ids: ClassVar[np.ndarray] = np.zeros(1, np.int32)

  def __post_init__(self) -> None:
    if self.malformed == "refuse" and self.records.problem:
      raise errors.DataError(
        f"{self.name}, split {self.split}: {self.records.problem}. Correct the data, or leave such records"
        " out and have them counted: --gin.MALFORMED=\"'skip'\"."
      )

  def __len__(self) -> int:
    return len(self.records)

  @property
  def longest(self) -> tuple[int, int]:
    """Tokens that no input and no target exceeds."""
    return self.limits["inputs"], self.limits["targets"]

  @property
  def lengths(self) -> LengthReport:
    """Of a sample of records, evenly spread."""
    return self._sample[0]

  @functools.cached_property
  def content(self) -> identity.Part:
    """Of all records, and of the tokens that the sample becomes: template and vocabulary are in them."""
    report, digest = self._sample
    made = [report.inputs_limit, report.targets_limit, self.cut, self.target_form, digest]
    return identity.part(
      [len(self), self.records.content, *made],
      about=f"{len(self)} records of {self.name} {self.split}, read by number",
    )

  def __str__(self) -> str:
    return (
      f"{len(self):,} records, each read when a batch has it; of {self.lengths.examples} that were looked"
      f" at: {self.lengths}"
    )

  def select(self, numbers: Sequence[int] | np.ndarray) -> Examples:
    """The examples of these numbers, in this order; one that cannot be used has an empty target.

    Raises:
      DataError: one is to be refused, with its place; or a file was changed.
    """
    reader = self._reader()
    tokens: dict[str, list[np.ndarray]] = {side: [] for side in _SIDES}
    texts = []
    # In the order of the files, which a disk reads faster.
    order = np.argsort(numbers, kind="stable")
    for number, element in zip(np.asarray(numbers)[order], self._elements(numbers, order)):
      if element is None or not reader.is_usable(int(number), element):
        element = self._nothing
      for side in _SIDES:
        tokens[side].append(reader.cut(side, element[side]))
      texts.append(split_reader.record_of(element, whole=False))
    reader.refuse(len(texts))
    self._tell(reader.skipped)
    back = np.argsort(order, kind="stable")
    return Examples(
      name=self.name,
      split=self.split,
      features={
        **{side: [tokens[side][place] for place in back] for side in _SIDES},
        "prompt_ids": np.zeros(len(texts), np.int32),
      },
      records=[texts[place] for place in back],
      lengths=LengthReport(
        examples=len(texts),
        inputs_limit=self.limits["inputs"],
        targets_limit=self.limits["targets"],
      ),
    )

  def _elements(
    self, numbers: Sequence[int] | np.ndarray, order: Sequence[int] | np.ndarray
  ) -> Iterator[dict[str, Any] | None]:
    return (self._element(self.records.record(int(numbers[place]))) for place in order)

  def _element(self, record: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Whole texts and tokens as `split_reader` takes them; None for a record that takes no part."""
    if record is None:
      return None
    try:
      if not record.get("problem") and not self.task.is_usable(record):
        return None
      text = self.task.render(record)
    except templates.NoText:
      return None
    except errors.DataError as error:
      return {"problem": str(error), "inputs": (), "targets": ()}
    # Nothing is put around an answer that is not there.
    target = templates.target_text(text.target, self.target_form) if text.target else ""
    first, second = joining.texts_to_tokens(self.vocabulary, text.input, target)
    if self.target_form == "sentinel":
      second = self.vocabulary.encode(target, special_tokens=True)
    return {
      "inputs": self.vocabulary.input_frame.around(first),
      "targets": self.vocabulary.target_frame.around(second),
      "inputs_pretokenized": text.input,
      "targets_pretokenized": target,
      "answers": text.answers,
    }

  @functools.cached_property
  def _sample(self) -> tuple[LengthReport, str]:
    numbers = np.linspace(0, len(self) - 1, min(_SAMPLE, len(self))).astype(np.int64)
    every = self._elements(numbers, range(len(numbers)))
    stored = self._reader().read((each for each in every if each is not None), whole=False)
    digest = [stored[name].tolist() for name in ("inputs", "input_lengths", "targets")]
    return LengthReport(**stored["report"]), identity.digest(digest)

  @functools.cached_property
  def _frames(self) -> dict[str, frames.Frame]:
    return {"inputs": self.vocabulary.input_frame, "targets": self.vocabulary.target_frame}

  @functools.cached_property
  def _nothing(self) -> dict[str, Any]:
    """In place of a record that cannot be used: an input, since a decoder-only model begins after one."""
    frame = self._frames["inputs"].around([])
    alone = frame if len(frame) else np.asarray([self.vocabulary.eos], np.int32)
    return {"inputs": alone, "targets": np.zeros(0, np.int32)}

  def _reader(self) -> split_reader.SplitReader:
    return split_reader.SplitReader(
      name=self.name,
      split=self.split,
      **self.limits,
      limit=None,
      seed=0,
      cut=self.cut,
      malformed=self.malformed,
      empty_targets=self.empty_targets,
      frames=self._frames,
      kinds={},
    )

  @functools.cached_property
  def _left_out(self) -> dict[str, int]:
    return {}

  def _tell(self, skipped: Mapping[str, int]) -> None:
    for reason, count in skipped.items():
      before = self._left_out.get(reason, 0)
      self._left_out[reason] = now = before + count
      # At the first one and whenever they have become ten times as many.
      if len(str(now)) > len(str(before)) or not before:
        self.report(f"data      {self.name} {self.split}: {now} records left out so far ({reason})")
