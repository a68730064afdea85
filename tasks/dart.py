"""DART 1.1.1: triples from tables and other data sets in words."""

from collections.abc import Mapping

from promot_jax.data import layouts, original_files, templates, triple_files
from promot_jax.data.original_files import Layout
from promot_jax.data.task import Record, Task
from promot_jax.metrics import registry
from promot_jax.micro import tables, world


def _template(record: Record) -> templates.Rendered:
  """'subject : property : object | ...', the property in lower case, as Li & Liang (2021) write it."""
  facts = (fact.split(" | ") for fact in record["tripleset"])
  text = " | ".join(f"{first} : {name.lower()} : {last}" for first, name, last in facts)
  return templates.references(text, record["references"])


def _of_json(row: Mapping) -> Record:
  entry = triple_files.Entry(
    line=0,
    category="",
    triples=[" | ".join(fact) for fact in row["tripleset"]],
    texts=[(each["source"], each["text"]) for each in row["annotations"]],
  )
  return _record(entry)


def _record(entry: triple_files.Entry) -> Record:
  texts = [text for _, text in entry.texts if text.strip()]
  return {
    "tripleset": triple_files.triples(entry),
    "references": layouts.texts({"texts": texts}, "texts"),
  }


_NAME = "dart/dart-v1.1.1-full-"
_FILES = (
  Layout(
    splits={
      "train": (f"{_NAME}train.json",),
      "validation": (f"{_NAME}dev.json",),
      "test": (f"{_NAME}test.json",),
    },
    rows=layouts.json_document,
    record=_of_json,
  ),
  Layout(splits={"test": (f"{_NAME}test.xml",)}, rows=triple_files.entries, record=_record),
)

TASK = Task(
  name="dart",
  fields=(("tripleset",), ("references",)),
  template=_template,
  metric="bleu",
  metric_fns=registry.official("dart"),
  sources={
    "files": original_files.source(
      *_FILES,
      references="references",
      sizes={"train": 62_659, "validation": 2768, "test": 5097},
    ),
    "micro": world.source("dart", tables.dart, pretrained=False),
  },
)
