"""OpenbookQA, four-way multiple choice: a fine-tuned task of the paper's Table 10."""

from promot_jax import errors
from promot_jax.data import layouts, original_files, templates, tfds
from promot_jax.data.original_files import Layout
from promot_jax.data.task import Record, Source, Task
from promot_jax.metrics import accuracy
from promot_jax.micro import questions, world

_LETTERS = ("A", "B", "C", "D")


def _template(record: Record) -> templates.Rendered:
  question = record["question"]
  choices = " ".join(f"{letter}) {text}" for letter, text in zip(_LETTERS, _choices(record)))
  return templates.labelled(f"Q: {question['stem']} {choices} A:", _letter(record))


def _choices(record: Record) -> list[str]:
  return [record["question"][f"choice_{letter}"] for letter in _LETTERS]


def _letter(record: Record) -> str:
  """Of the right choice; empty where it is not public."""
  # A letter in the original files, a number in TensorFlow Datasets, -1 where it is not public.
  key = record["answerKey"]
  letter = key if isinstance(key, str) else "" if key == -1 else _LETTERS[int(key)]
  if letter and letter not in _LETTERS:
    raise errors.DataError(f"answer key {key!r} is none of {', '.join(_LETTERS)}.")
  return letter


def _record(row: Record) -> Record:
  question = row["question"]
  choices = {f"choice_{each['label']}": each["text"] for each in question["choices"]}
  # Four choices in this order, for the template names them by their letters.
  if sorted(choices) != [f"choice_{letter}" for letter in _LETTERS]:
    raise errors.DataError(f"the choices are {', '.join(choices)}, not one for each of A, B, C, D.")
  key = layouts.class_number(row, _LETTERS, name="answerKey")
  return {"question": {"stem": layouts.text(question, "stem"), **choices}, "answerKey": key}


def _files(folder: str, ending: str) -> Layout:
  names = {"train": "train", "validation": "dev", "test": "test"}
  return Layout(
    splits={split: (f"{folder}/{name}{ending}.jsonl",) for split, name in names.items()},
    rows=layouts.json_lines,
    record=_record,
  )


_SIZES = {"train": 4957, "validation": 500, "test": 500}

TASK = Task(
  name="openbookqa",
  fields=(
    ("question", "stem"),
    *(("question", f"choice_{letter}") for letter in _LETTERS),
    ("answerKey",),
  ),
  template=_template,
  columns={
    "question_stem": lambda record: record["question"]["stem"],
    "choices": lambda record: {"text": _choices(record), "label": list(_LETTERS)},
    "answerKey": _letter,
  },
  labels=_LETTERS,
  metric="accuracy",
  metric_fns=(accuracy.accuracy,),
  sources={
    "tfds": Source(
      origin=tfds.DataSet(task="openbookqa", published="openbookqa:0.1.0"),
      sizes={"train": 4957, "test": 500},
    ),
    "files": original_files.source(
      # By the folder of one's own, then as the archive unpacks.
      _files("openbookqa", ""),
      _files("OpenBookQA-V1-Sep2018/Data/Main", ""),
      _files("OpenBookQA-V1-Sep2018/Data/Additional", "_complete"),
      sizes=_SIZES,
    ),
    "micro": world.source("openbookqa", questions.openbookqa),
  },
)
