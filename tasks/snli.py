"""SNLI: three-way inference between captions of photographs."""

from promot_jax.data import templates, tfds
from promot_jax.data.task import Source, Task
from promot_jax.metrics import accuracy
from promot_jax.micro import inference, world

# In the order of the data set's class numbers.
_CLASSES = {
  "entailment": "True",
  "neutral": "Neither",
  "contradiction": "False",
}

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
      sizes={"train": 549_367, "test": 10_000},
    ),
    "micro": world.source("snli", inference.snli, pretrained=False),
  },
)
