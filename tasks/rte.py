"""RTE of SuperGLUE: does the premise entail the hypothesis."""

from promot_jax.data import layouts, original_files, templates, tfds
from promot_jax.data.original_files import Layout
from promot_jax.data.task import Record, Source, Task
from promot_jax.metrics import accuracy
from promot_jax.micro import inference, world

# In the order of the data set's class numbers.
_CLASSES = {"entailment": "True", "not_entailment": "False"}


def _record(row: Record, premise: str = "premise", hypothesis: str = "hypothesis") -> Record:
  return {
    "premise": layouts.text(row, premise),
    "hypothesis": layouts.text(row, hypothesis),
    "label": layouts.class_number(row, tuple(_CLASSES)),
  }


_GLUE = Layout(  # the same items; its quotes are quotes
  splits={
    "train": ("glue_rte/train.tsv",),
    "validation": ("glue_rte/dev.tsv",),
    "test": ("glue_rte/test.tsv",),
  },
  rows=layouts.of_table("sentence1", "sentence2", quotes=False),
  record=lambda row: _record(row, "sentence1", "sentence2"),
)
_SIZES = {"train": 2490, "validation": 277}

TASK = Task(
  name="rte",
  fields=(("premise",), ("hypothesis",), ("label",)),
  template=templates.inference("Is it true or false?", _CLASSES),
  labels=("True", "False"),
  first_token=True,
  metric="accuracy",
  metric_fns=(accuracy.accuracy,),
  sources={
    "tfds": Source(
      origin=tfds.DataSet(task="rte", published="super_glue/rte:1.0.2"),
      # SuperGLUE keeps its test labels to itself, so the validation split is reported.
      report="validation",
      sizes=_SIZES,
    ),
    # GLUE's file first where both are there: the items are the same.
    "files": original_files.source(
      _GLUE, layouts.super_glue("RTE", _record), report="validation", sizes=_SIZES
    ),
    # Not pretrained: it is the task that is tuned on.
    "micro": world.source("rte", inference.rte, pretrained=False),
  },
)
