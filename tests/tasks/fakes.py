"""Stand-ins for TensorFlow Datasets: sources with the fields of ../shared TFDS feature specs.

`element_spec` of each task is written down from the specs that tensorflow-datasets 4.9.10 prints
for the pinned data sets, including the fields that no template reads.
"""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

import tasks
from promot_jax.data.task import Task
from tasks import sources

TEXT = tf.TensorSpec([], tf.string)
TEXTS = tf.TensorSpec([None], tf.string)
LABEL = tf.TensorSpec([], tf.int64)
NUMBER = tf.TensorSpec([], tf.int32)

SPECS: dict[str, Any] = {
  "rte": {"hypothesis": TEXT, "idx": NUMBER, "label": LABEL, "premise": TEXT},
  "cb": {"hypothesis": TEXT, "idx": NUMBER, "label": LABEL, "premise": TEXT},
  "snli": {"hypothesis": TEXT, "label": LABEL, "premise": TEXT},
  "wic": {
    "end1": NUMBER,
    "end2": NUMBER,
    "idx": NUMBER,
    "label": LABEL,
    "sentence1": TEXT,
    "sentence2": TEXT,
    "start1": NUMBER,
    "start2": NUMBER,
    "word": TEXT,
  },
  "openbookqa": {
    "answerKey": LABEL,
    "clarity": tf.TensorSpec([], tf.float32),
    "fact1": TEXT,
    "humanScore": tf.TensorSpec([], tf.float32),
    "question": {
      "choice_A": TEXT,
      "choice_B": TEXT,
      "choice_C": TEXT,
      "choice_D": TEXT,
      "stem": TEXT,
    },
    "turkIdAnonymized": TEXT,
  },
  "trivia_qa": {
    "answer": {
      "aliases": TEXTS,
      "matched_wiki_entity_name": TEXT,
      "normalized_aliases": TEXTS,
      "normalized_matched_wiki_entity_name": TEXT,
      "normalized_value": TEXT,
      "type": TEXT,
      "value": TEXT,
    },
    "entity_pages": {"doc_source": TEXTS, "title": TEXTS, "wiki_context": TEXTS},
    "question": TEXT,
    "question_id": TEXT,
    "question_source": TEXT,
    "search_results": {"rank": tf.TensorSpec([None], tf.int32), "search_context": TEXTS},
  },
  "web_questions": {"answers": TEXTS, "question": TEXT, "url": TEXT},
  "wmt14_en_fr": {"en": TEXT, "fr": TEXT},
  "wmt16_en_de": {"de": TEXT, "en": TEXT},
  "wmt16_en_ro": {"en": TEXT, "ro": TEXT},
  "xsum": {"document": TEXT, "summary": TEXT},
  "wiki_lingua": {
    "gem_id": TEXT,
    "gem_parent_id": TEXT,
    "references": TEXTS,
    "source": TEXT,
    "source_aligned": {"en": TEXT},
    "target": TEXT,
    "target_aligned": {"en": TEXT},
  },
}


def fill(spec: Any, record: Any) -> Any:
  """`record` with every field of `spec` that it lacks: empty text, empty lists, zeros."""
  if isinstance(spec, Mapping):
    given = record if isinstance(record, Mapping) else {}
    return {name: fill(inner, given.get(name)) for name, inner in spec.items()}
  if record is not None:
    return record
  if spec.shape.rank:
    return np.zeros([0], object if spec.dtype == tf.string else spec.dtype.as_numpy_dtype)
  return b"" if spec.dtype == tf.string else 0


def fake_source(spec: Any, splits: Mapping[str, Sequence[Any]]) -> seqio.FunctionDataSource:
  """A seqio source that yields these records, filled up to `spec`."""

  def dataset(split: str, shuffle_files: bool = False, seed: int | None = None):
    records = [fill(spec, record) for record in splits[split]]
    return tf.data.Dataset.from_generator(lambda: iter(records), output_signature=spec)

  return seqio.FunctionDataSource(dataset, splits=list(splits))


@contextlib.contextmanager
def in_place_of_tfds(task: str | Task, splits: Mapping[str, Sequence[Any]], spec: Any = None):
  """Lets the tfds registrations of `task` read `splits` instead."""
  task = tasks.find(task) if isinstance(task, str) else task
  replaced = [sources.task_source(task, "tfds", shots) for shots in (0, 1, 4)]
  before = [source.__dict__.copy() for source in replaced]
  source = fake_source(spec or SPECS[task.name], splits)
  for one in replaced:
    one.__dict__.update(_source=source, _pairs=None, _pools={})
  try:
    yield
  finally:
    for one, old in zip(replaced, before):
      one.__dict__.clear()
      one.__dict__.update(old)
