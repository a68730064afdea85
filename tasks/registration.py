"""Puts one task into seqio's registry under each of its names; reads no file."""

import functools
import itertools

import seqio

from promot_jax.data import joining, templates
from promot_jax.metrics.headline import metric_of
from tasks import catalog, preprocessors, sources, vocabularies


def add(task: str) -> None:
  """Registers `task` with 0, 1 and 4 demonstrations, all sources, both forms of the target."""
  forms: tuple[templates.TargetForm, ...] = ("raw", "sentinel")
  for shots, place, form in itertools.product(catalog.SHOTS, catalog.SOURCES, forms):
    name = f"{task}_{shots}shot" if shots else task
    suffix = "" if form == "raw" else f".{form}"
    add_version(task, f"{name}.{place}{suffix}", place=place, shots=shots, target_form=form)


def add_version(
  task: str,
  name: str,
  *,
  place: str,
  vocabulary: str = "",
  shots: int = 0,
  target_form: templates.TargetForm = "raw",
  separator: str | None = None,
  trivia_target: templates.TriviaTarget = "value",
) -> None:
  """Registers one version of `task`; call it for choices that have no name of their own.

  Args:
    task: a name of `catalog.TASKS`.
    name: the new seqio name, for example 'trivia_qa_normalized.tfds.t5'.
    place: 'tfds.t5', 'tfds.mt5' or 'micro'; 'tfds' or 'micro' with a `vocabulary`.
    vocabulary: name of a user's own vocabulary (`promot_jax.data.vocabularies`).
    shots: demonstrations before each query.
    target_form: raw or sentinel-wrapped targets; demonstrations are always raw.
    separator: text between demonstrations and before the query; None: as the vocabulary has it.
    trivia_target: the answer field that TriviaQA trains on.
  """
  if name in seqio.TaskRegistry.names():
    return
  source, _, named = place.partition(".")
  found = vocabularies.seqio_vocabulary(vocabulary or named or source)
  answers = found
  if target_form == "sentinel":  # our own template spells sentinels; users' texts do not
    answers = vocabularies.seqio_vocabulary(vocabulary or named or source, special_tokens=True)
  # Known without reading a file for ours.
  written = found.plain.joining if vocabulary else joining.TWO_TEXTS
  seqio.TaskRegistry.add(
    name,
    source=sources.task_source(task, source, shots),
    output_features={
      # Known without reading a file for ours; a decoder-only input ends with its separator.
      "inputs": seqio.Feature(found, add_eos=not vocabulary or _ends_with_eos(found)),
      "targets": seqio.Feature(answers, add_eos=True),
    },
    preprocessors=preprocessors.pipeline(
      task,
      target_form=target_form,
      separator=written.examples if separator is None else separator,
      before_answer=written.answer,
      trivia_target=trivia_target,
    ),
    postprocess_fn=functools.partial(preprocessors.postprocess, task=task),
    metric_fns=[metric(task)],
  )


def add_on_demand(name: str, vocabulary: str) -> None:
  """Registers the version of a task for a user's own vocabulary, whose files are read.

  Args:
    name: what `catalog.resolve` gave for this vocabulary: 'rte_1shot.micro.hf:gpt2_0123abcd'.
    vocabulary: its name, 'hf:/models/gpt2'.
  """
  first, source, *rest = name.split(".")
  task, shots = catalog.split_shots(first)
  form: templates.TargetForm = "sentinel" if rest[-1] == "sentinel" else "raw"
  add_version(task, name, place=source, vocabulary=vocabulary, shots=shots, target_form=form)


def _ends_with_eos(vocabulary: vocabularies.LazyVocabulary) -> bool:
  return vocabulary.plain.input_frame.suffix == (vocabulary.plain.eos,)


def metric(task: str):
  """The metric of a task: `metric(targets, predictions)` -> scores by name, 0 to 100."""
  found = catalog.information(task)
  return metric_of(found.name, found.metric)
