"""NQ-open: closed-book questions of Natural Questions; its development split is what all papers test on."""

from promot_jax.data import layouts, original_files, templates, tfds
from promot_jax.data.original_files import Files, Layout
from promot_jax.data.task import Record, Source, Task
from promot_jax.metrics import exact_match
from promot_jax.micro import questions, world


def _template(record: Record) -> templates.Rendered:
  return templates.question(record["question"], record["answer"])


def _record(row: Record) -> Record:
  return {"question": layouts.text(row, "question"), "answer": layouts.texts(row, "answer")}


def _half(first: bool):
  """Hewitt et al. (2021) choose on one half of it and report the other; which, they do not say."""

  def rows(files: Files):
    for number, row in enumerate(layouts.json_lines(files)):
      if (number % 2 == 0) == first:
        yield row

  return rows


_DEVELOPMENT = "nq_open/NQ-open.dev.jsonl"
_SIZES = {"train": 87_925, "validation": 3610}
_FILES = (
  Layout(
    splits={
      "train": ("nq_open/NQ-open.train.jsonl",),
      "validation": (_DEVELOPMENT,),
      "efficientqa_dev": ("nq_open/NQ-open.efficientqa.dev.1.1.jsonl",),
      "efficientqa_test": ("nq_open/NQ-open.efficientqa.test.1.1.jsonl",),
    },
    rows=layouts.json_lines,
    record=_record,
  ),
  # A split of its own for each, since a split is a list of files.
  Layout(splits={"first_half": (_DEVELOPMENT,)}, rows=_half(True), record=_record),
  Layout(splits={"second_half": (_DEVELOPMENT,)}, rows=_half(False), record=_record),
)

TASK = Task(
  name="nq_open",
  fields=(("question",), ("answer",)),
  template=_template,
  metric="exact_match",
  metric_fns=(exact_match.exact_match,),
  sources={
    "tfds": Source(
      origin=tfds.DataSet(task="nq_open", published="natural_questions_open:1.0.0"),
      report="validation",
      # The one split with public answers is reported, so that a part of 'train' chooses.
      selection=None,
      sizes=_SIZES,
    ),
    "files": original_files.source(
      *_FILES,
      report="validation",
      selection=None,
      sizes={**_SIZES, "efficientqa_dev": 1800, "first_half": 1805, "second_half": 1805},
    ),
    "micro": world.source("nq_open", listed=questions.nq_open, pretrained=False),
  },
)
