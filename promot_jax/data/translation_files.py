"""The files of WMT's parallel corpora: two texts, line by line."""

import functools

from promot_jax.data import layouts as rows_of
from promot_jax.data.original_files import Layout
from promot_jax.data.task import Record

_LETTERS = {"en": "eng", "fr": "fra", "de": "deu", "ro": "ron"}  # ISO 639-3


def layouts(task: str, source: str, target: str, *, choose: str, report: str) -> tuple[Layout, ...]:
  """Where the two sides of each split lie.

  Args:
    task: the folder below DATA_DIR; its `train/` has any number of corpora, as WMT names them
      ('europarl-v7.fr-en.en' beside 'europarl-v7.fr-en.fr').
    source, target: codes of the languages, with which the files' names end.
    choose, report: sets of the validation and of the test split: 'newstest2014'.
  """
  sides = (source, target)
  record = functools.partial(_record, sides=sides)
  rows = rows_of.of_parallel(*sides)
  numbered = functools.partial(rows_of.numbered_parallel, names=sides)
  own = {"train": "train/*", "validation": choose, "test": report}
  pair = f"wmt/{_LETTERS[source]}-{_LETTERS[target]}"
  return (
    Layout(
      # Corpora as WMT distributes them, any number for training.
      splits={
        split: tuple(f"{task}/{name}.{side}" for side in sides) for split, name in own.items()
      },
      rows=rows,
      record=record,
      numbered=numbered,
    ),
    # As collections of all test sets have them.
    Layout(
      splits={
        split: tuple(f"{pair}/{own[split]}.{_LETTERS[side]}" for side in sides)
        for split in ("validation", "test")
      },
      rows=rows,
      record=record,
    ),
  )


def _record(row: Record, *, sides: tuple[str, str]) -> Record:
  return {side: rows_of.text(row, side) for side in sides}
