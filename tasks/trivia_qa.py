"""TriviaQA without context: closed-book questions; exact match over all aliases."""

import dataclasses
import functools
from typing import Literal

from promot_jax import errors
from promot_jax.data import layouts, original_files, templates, tfds
from promot_jax.data.original_files import Layout
from promot_jax.data.task import Record, Source, Task
from promot_jax.metrics import exact_match
from promot_jax.micro import questions, world

Target = Literal["value", "normalized_value"]


def _template(record: Record, *, target: Target = "value") -> templates.Rendered:
  answer = record["answer"]
  # Other sources have no normalized form, and lower case is most of it.
  accepted = {"normalized_value": answer["value"].lower(), **answer}
  # The target first, which is what is trained; both forms and all aliases are accepted.
  return templates.question(
    record["question"], [accepted[target], answer["value"], *answer["aliases"]]
  )


def with_target(target: Target) -> Task:
  """The task with the normalized form of an answer as its target; every alias is accepted too.

  Raises:
    ConfigError: no such field.
  """
  if target not in ("value", "normalized_value"):
    raise errors.ConfigError(
      f"TriviaQA target {target!r} is not known; use 'value' or 'normalized_value'."
    )
  return dataclasses.replace(TASK, template=functools.partial(_template, target=target))


def _official(row: Record) -> Record:
  answer = row["Answer"]
  return {
    "question": layouts.text(row, "Question"),
    "answer": {
      "value": layouts.text(answer, "Value"),
      "normalized_value": layouts.text(answer, "NormalizedValue"),
      # Whatever JSON has there, an answer is compared as text.
      "aliases": [str(alias) for alias in answer["Aliases"]],
    },
  }


def _listed(row: Record) -> Record:
  # FlashRAG keeps the answers alone, the first of which is the value.
  answers = layouts.texts(row, "golden_answers")
  answer = {"value": answers[0], "normalized_value": answers[0].lower(), "aliases": answers}
  return {"question": layouts.text(row, "question"), "answer": answer}


_FILES = (
  # 'verified' items are among those of TensorFlow Datasets too: 18,669 with them.
  Layout(
    splits={"train": ("trivia_qa/qa/*-train.json",), "validation": ("trivia_qa/qa/*-dev.json",)},
    rows=layouts.of_document(lambda document: document["Data"]),
    record=_official,
  ),
  # JSON lines of FlashRAG, whose test split is made of the development split.
  Layout(
    splits={"train": ("trivia_qa/*train.jsonl",), "validation": ("trivia_qa/*test.jsonl",)},
    rows=layouts.json_lines,
    record=_listed,
  ),
)

TASK = Task(
  name="trivia_qa",
  fields=(
    ("question",),
    ("answer", "value"),
    ("answer", "normalized_value"),
    ("answer", "aliases"),
  ),
  optional=(("answer", "normalized_value"),),
  template=_template,
  metric="exact_match",
  metric_fns=(exact_match.trivia_qa,),  # by the rule of its own scorer
  sources={
    "tfds": Source(
      origin=tfds.DataSet(task="trivia_qa", published="trivia_qa/rc.nocontext:1.1.0"),
      report="validation",  # TFDS has no answers of the test split
      sizes={"train": 138_384},
    ),
    "files": original_files.source(
      *_FILES, report="validation", sizes={"train": 138_384, "validation": 18_669}
    ),
    "micro": world.source("trivia_qa", listed=questions.trivia_qa),
  },
)
