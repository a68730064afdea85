"""WebQuestions: closed-book questions; it has no validation split."""

from promot_jax.data import templates, tfds
from promot_jax.data.task import Record, Source, Task
from promot_jax.metrics import exact_match
from promot_jax.micro import questions, world


def _template(record: Record) -> templates.Rendered:
  return templates.question(record["question"], record["answers"])


TASK = Task(
  name="web_questions",
  fields=(("question",), ("answers",)),
  template=_template,
  metric="exact_match",
  metric_fns=(exact_match.exact_match,),
  sources={
    "tfds": Source(
      origin=tfds.DataSet(task="web_questions", published="web_questions:1.0.0"),
      selection=None,
      sizes={"train": 3778, "test": 2032},
    ),
    "micro": world.source("web_questions", listed=questions.web_questions),
  },
)
