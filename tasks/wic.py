"""Word-in-Context of SuperGLUE: is a word used in one sense in two sentences."""

from promot_jax.data import layouts, original_files, templates, tfds
from promot_jax.data.task import Record, Source, Task
from promot_jax.metrics import accuracy
from promot_jax.micro import senses, world

_CLASSES = {"False": "False", "True": "True"}


def _template(record: Record) -> templates.Rendered:
  text = (
    f"{record['sentence1']} {record['sentence2']} question: The word {record['word']} is used in the"
    " same way in the two sentences. Is it true or False? answer:"
  )
  return templates.labelled(text, templates.word(record["label"], _CLASSES))


def _record(row: Record) -> Record:
  texts = {name: layouts.text(row, name) for name in ("sentence1", "sentence2", "word")}
  # As JSON writes truth values, in the order of the classes' numbers.
  return {**texts, "label": layouts.class_number(row, ("false", "true"))}


_SIZES = {"train": 5428, "validation": 638}

TASK = Task(
  name="wic",
  fields=(("sentence1",), ("sentence2",), ("word",), ("label",)),
  template=_template,
  labels=("True", "False"),
  first_token=True,
  metric="accuracy",
  metric_fns=(accuracy.accuracy,),
  sources={
    "tfds": Source(
      origin=tfds.DataSet(task="wic", published="super_glue/wic:1.0.2"),
      # SuperGLUE keeps its test labels to itself, so the validation split is reported.
      report="validation",
      sizes=_SIZES,
    ),
    "files": original_files.source(
      layouts.super_glue("WiC", _record), report="validation", sizes=_SIZES
    ),
    "micro": world.source("wic", senses.wic),
  },
)
