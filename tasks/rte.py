"""RTE of SuperGLUE: does the premise entail the hypothesis."""

from promot_jax.data import templates, tfds
from promot_jax.data.task import Source, Task
from promot_jax.metrics import accuracy
from promot_jax.micro import inference, world

# In the order of the data set's class numbers.
_CLASSES = {"entailment": "True", "not_entailment": "False"}

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
      sizes={"train": 2490, "validation": 277},
    ),
    "micro": world.source("rte", inference.rte, pretrained=False),
  },
)
