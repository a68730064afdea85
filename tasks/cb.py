"""CommitmentBank of SuperGLUE: three-way inference from embedded clauses."""

import functools

from promot_jax.data import layouts, original_files, templates, tfds
from promot_jax.data.task import Record, Source, Task
from promot_jax.metrics import accuracy
from promot_jax.micro import inference, world

# In the order of the data set's class numbers.
_CLASSES = {
  "entailment": "True",
  "contradiction": "False",
  "neutral": "Neither",
}

_SIZES = {"train": 250, "validation": 56}


def _record(row: Record) -> Record:
  return {
    "premise": layouts.text(row, "premise"),
    "hypothesis": layouts.text(row, "hypothesis"),
    # Numbers as TensorFlow Datasets gives them, so that one template serves all sources.
    "label": layouts.class_number(row, tuple(_CLASSES)),
  }


TASK = Task(
  name="cb",
  fields=(("premise",), ("hypothesis",), ("label",)),
  template=templates.inference("Is it true or false or neither?", _CLASSES),
  labels=("True", "False", "Neither"),
  first_token=True,
  metric="accuracy",
  metric_fns=(accuracy.accuracy,),
  sources={
    "tfds": Source(
      origin=tfds.DataSet(task="cb", published="super_glue/cb:1.0.2"),
      # SuperGLUE keeps its test labels to itself, so the validation split is reported.
      report="validation",
      sizes=_SIZES,
    ),
    "files": original_files.source(
      layouts.super_glue("CB", _record), report="validation", sizes=_SIZES
    ),
    "micro": world.source(
      "cb",
      functools.partial(inference.cb, implicative=0.4),
      # No implicative verbs there: what they say is known from running text only, and that "True" and
      # "False" can be said of it is new.
      draw_for_pretraining=functools.partial(inference.cb, implicative=0.0),
    ),
  },
)
