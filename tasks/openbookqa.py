"""OpenbookQA, four-way multiple choice: a fine-tuned task of the paper's Table 10."""

from promot_jax import errors
from promot_jax.data import templates, tfds
from promot_jax.data.task import Record, Source, Task
from promot_jax.metrics import accuracy
from promot_jax.micro import questions, world

_LETTERS = ("A", "B", "C", "D")


def _template(record: Record) -> templates.Rendered:
  question = record["question"]
  choices = " ".join(f"{letter}) {question[f'choice_{letter}']}" for letter in _LETTERS)
  key = record["answerKey"]
  letter = key if isinstance(key, str) else "" if key == -1 else _LETTERS[int(key)]
  if letter and letter not in _LETTERS:
    raise errors.DataError(f"answer key {key!r} is none of {', '.join(_LETTERS)}.")
  return templates.labelled(f"Q: {question['stem']} {choices} A:", letter)


TASK = Task(
  name="openbookqa",
  fields=(
    ("question", "stem"),
    *(("question", f"choice_{letter}") for letter in _LETTERS),
    ("answerKey",),
  ),
  template=_template,
  labels=_LETTERS,
  metric="accuracy",
  metric_fns=(accuracy.accuracy,),
  sources={
    "tfds": Source(
      origin=tfds.DataSet(task="openbookqa", published="openbookqa:0.1.0"),
      sizes={"train": 4957, "test": 500},
    ),
    "micro": world.source("openbookqa", questions.openbookqa),
  },
)
