"""SQuAD 1.1: questions on a paragraph of Wikipedia; trained on before MRQA's out-of-domain sets."""

from promot_jax.data import original_files, questions_on_text, tfds
from promot_jax.data.task import Source, Task
from promot_jax.metrics import answer_f1
from promot_jax.micro import passages, world

_SIZES = {"train": 87_599, "validation": 10_570}
_FILES = questions_on_text.squad(
  ("train", "squad/train-v1.1.json"),
  ("validation", "squad/dev-v1.1.json"),
  ("validation", "squad/xquad.en.json"),  # XQuAD's English is a part of the development split
)

TASK = Task(
  name="squad",
  fields=questions_on_text.FIELDS,
  template=questions_on_text.template,
  metric="f1",
  metric_fns=(answer_f1.f1,),  # gives exact_match too
  sources={
    "tfds": Source(
      origin=tfds.DataSet(task="squad", published="squad/v1.1:3.0.0"),
      # SQuAD's test split is not public.
      report="validation",
      sizes=_SIZES,
    ),
    "files": original_files.source(*_FILES, report="validation", sizes=_SIZES),
    "micro": world.source("squad", passages.squad, pretrained=False),
  },
)
