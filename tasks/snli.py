"""SNLI: three-way inference between captions of photographs."""

from promot_jax.data import layouts, original_files, templates, tfds
from promot_jax.data.original_files import Layout
from promot_jax.data.task import Record, Source, Task
from promot_jax.metrics import accuracy
from promot_jax.micro import inference, world

# In the order of the data set's class numbers.
_CLASSES = {
  "entailment": "True",
  "neutral": "Neither",
  "contradiction": "False",
}

_SIZES = {"train": 549_367, "test": 10_000}


def _record(row: Record, premise: str, hypothesis: str, label: str) -> Record:
  found = {"premise": layouts.text(row, premise), "hypothesis": layouts.text(row, hypothesis)}
  found = {name: text.strip() for name, text in found.items()}
  # No majority among the annotators.
  undecided = row[label] == "-"
  return {
    **found,
    "label": -1 if undecided else layouts.class_number(row, tuple(_CLASSES), name=label),
  }


_SNLI = Layout(
  splits={
    "train": ("snli_1.0/snli_1.0_train.jsonl",),
    "validation": ("snli_1.0/snli_1.0_dev.jsonl",),
    "test": ("snli_1.0/snli_1.0_test.jsonl",),
  },
  rows=layouts.json_lines,
  record=lambda row: _record(row, "sentence1", "sentence2", "gold_label"),
)
_E_SNLI = Layout(  # tokenised, without the undecided items, as e-SNLI has them
  splits={
    split: tuple(f"snli/{part}.{name}" for part in ("s1", "s2", "labels"))
    for split, name in {"train": "train", "validation": "dev", "test": "test"}.items()
  },
  rows=layouts.of_parallel("s1", "s2", "label"),
  record=lambda row: _record(row, "s1", "s2", "label"),
)

TASK = Task(
  name="snli",
  fields=(("premise",), ("hypothesis",), ("label",)),
  template=templates.inference("Is it true or false or neither?", _CLASSES),
  usable=lambda record: record["label"] != -1,  # its items without a majority label
  labels=("True", "False", "Neither"),
  first_token=True,
  metric="accuracy",
  metric_fns=(accuracy.accuracy,),
  sources={
    "tfds": Source(
      origin=tfds.DataSet(task="snli", published="snli:1.1.0"),
      sizes=_SIZES,
    ),
    "files": original_files.source(_SNLI, _E_SNLI, sizes=_SIZES),
    "micro": world.source("snli", inference.snli, pretrained=False),
  },
)
