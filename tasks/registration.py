"""Puts tasks into seqio's registry under each of their names; reads no file."""

import dataclasses
import functools

import seqio
import tensorflow as tf

from promot_jax.data import features, joining, templates, vocabularies
from promot_jax.data.task import Task
from tasks import catalog, preprocessors, sources
from tasks import vocabularies as seqio_vocabularies


@dataclasses.dataclass(frozen=True)
class Declared(seqio.Feature):
  """A feature whose arrays are made before seqio sees them, with its kind as the task declares it."""

  kind: features.Feature = features.Feature()  # noqa: RUF009 (a frozen value)


def add_all() -> None:
  """Every task and mixture with 0, 1 and 4 demonstrations, all sources, both forms of the target."""
  for name in catalog.names():
    every = [catalog.find(member) for member in catalog.members(name)]
    for place in catalog.PLACES:
      # A mixture is there only where all of its tasks have the source.
      if all(place.partition(".")[0] in task.sources for task in every):
        for form in ("", ".sentinel"):
          add(f"{name}.{place}{form}")


def add(name: str, vocabulary: str = "t5") -> None:
  """One name; of a mixture also its members.

  seqio users get a mixture at equal rates.  Our own training reads the members one by one and mixes them
  in `promot_jax.data.mixtures`, because each example carries the number of its task's prompt there.

  Args:
    name: what `catalog.resolve` gave for this vocabulary: 'rte_1shot.micro.hf:gpt2_0123abcd'.
    vocabulary: the one that it was given; the files of a user's own are read.
  """
  # Members first, which seqio wants registered.
  members = catalog.members(name)
  for member in members:
    first, label, *rest = member.split(".")
    form: templates.TargetForm = "sentinel" if rest and rest[-1] == "sentinel" else "raw"
    # A user's own vocabulary has its label where the name of ours would stand.
    own = vocabularies.reference(vocabulary) is not None
    # Without a part for the vocabulary: the micro world has its own, and a user's own is given.
    bare = own or not rest or rest[0] == "sentinel"
    add_version(
      catalog.find(first),
      member,
      place=label if bare else f"{label}.{rest[0]}",
      vocabulary=vocabulary if own else "",
      shots=catalog.split_shots(first)[1],
      target_form=form,
    )
  # Once, though several members may ask for it.
  if members != [name] and name not in seqio.MixtureRegistry.names():
    seqio.MixtureRegistry.add(name, members, default_rate=1.0)


def add_version(
  task: Task,
  name: str,
  *,
  place: str,
  vocabulary: str = "",
  shots: int = 0,
  target_form: templates.TargetForm = "raw",
  separator: str | None = None,
) -> None:
  """Registers one version of `task`; call it for choices that have no name of their own.

  Args:
    name: the new seqio name, for example 'trivia_qa_normalized.tfds.t5'.
    place: 'tfds.t5', 'tfds.mt5', 'files_0123abcd.t5' or 'micro'; without the last part with a `vocabulary`.
    vocabulary: name of a user's own vocabulary (`promot_jax.data.vocabularies`).
    shots: demonstrations before each query.
    target_form: raw or sentinel-wrapped targets; demonstrations are always raw.
    separator: text between demonstrations and before the query; None: as the vocabulary has it.
  """
  if name in seqio.TaskRegistry.names():
    # A process may ask for a name several times.
    if task is getattr(seqio.TaskRegistry.get(name).source, "task", task):
      return
    seqio.TaskRegistry.remove(name)  # a task that was added in place of another one of its name
  source, _, named = place.partition(".")
  found = seqio_vocabularies.seqio_vocabulary(vocabulary or named or source)
  # Demonstrations and inputs are a record's texts and read as text.
  answers = found
  if target_form == "sentinel":  # our own template spells sentinels; users' texts do not
    answers = seqio_vocabularies.seqio_vocabulary(
      vocabulary or named or source, special_tokens=True
    )
  # Known without reading a file for ours.
  written = found.plain.joining if vocabulary else joining.TWO_TEXTS
  seqio.TaskRegistry.add(
    name,
    source=sources.task_source(task, catalog.place_of(source), shots),
    output_features={
      # Known without reading a file for ours; a decoder-only input ends with its separator.
      "inputs": seqio.Feature(found, add_eos=not vocabulary or _ends_with_eos(found)),
      "targets": seqio.Feature(answers, add_eos=True),
      **_declared(task),
    },
    preprocessors=preprocessors.pipeline(
      task,
      target_form=target_form,
      separator=written.examples if separator is None else separator,
      before_answer=written.answer,
    ),
    postprocess_fn=functools.partial(preprocessors.postprocess, task=task),
    metric_fns=list(task.metric_fns),
  )


def _ends_with_eos(vocabulary: seqio_vocabularies.LazyVocabulary) -> bool:
  return vocabulary.plain.input_frame.suffix == (vocabulary.plain.eos,)


def _declared(task: Task) -> dict[str, Declared]:
  # Names first, so that a feature of a batch's own name is refused before anything is registered.
  for name in task.features:
    features.require_name(name, owner=f"task '{task.name}'")
  return {
    name: Declared(
      seqio.PassThroughVocabulary(size=0),
      add_eos=False,
      dtype=tf.as_dtype(feature.kind.dtype),
      rank=feature.kind.rank,
      kind=feature.kind,
    )
    for name, feature in task.features.items()
  }
