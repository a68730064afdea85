"""seqio preprocessors: record -> text, and the refusal of records that have no text."""

import functools

import numpy as np
import seqio
import tensorflow as tf

from promot_jax import errors
from promot_jax.data import templates
from tasks import records


def drop_unusable(dataset: tf.data.Dataset, *, task: str) -> tf.data.Dataset:
  """Leaves out what `templates.is_usable` leaves out: SNLI's items without a majority label."""
  if task != "snli":
    return dataset
  return dataset.filter(lambda record: record["label"] != -1)


def render(
  dataset: tf.data.Dataset,
  *,
  task: str,
  separator: str = templates.SEPARATOR,
  target_form: templates.TargetForm = "raw",
  trivia_target: templates.TriviaTarget = "value",
) -> tf.data.Dataset:
  """Text of every record by `templates.render`, the demonstrations of the source before it.

  The result has `inputs` and `targets` (text), `answers` (all accepted texts, raw) and `problem`:
  empty, or why the record could not be rendered.
  """

  def text(record, demonstrations=()):
    try:
      one = templates.render(task, record(), trivia_target=trivia_target)
    except errors.DataError as problem:
      return "", "", [], str(problem)
    shown = [(first.decode(), second.decode()) for first, second in demonstrations]
    prompt = templates.join_shots(shown, one.input, separator=separator)
    target = templates.target_text(one.target, target_form) if one.target else ""
    return prompt, target, list(one.answers), ""

  text_spec = tf.TensorSpec([], tf.string)
  outputs = {
    "inputs": text_spec,
    "targets": text_spec,
    "answers": tf.TensorSpec([None], tf.string),
    "problem": text_spec,
  }
  rendered = records.mapped(task, dataset, text, outputs)
  return rendered.map(lambda element: {name: element[name] for name in outputs})


def refuse_problems(dataset: tf.data.Dataset) -> tf.data.Dataset:
  """Stops at the first record that could not be rendered.

  `promot_jax.data.examples` leaves this step out and counts such records instead.
  """

  def checked(element):
    with tf.control_dependencies(
      [tf.debugging.Assert(element["problem"] == "", [element["problem"]])]
    ):
      return {name: tf.identity(value) for name, value in element.items()}

  return dataset.map(checked)


def pipeline(
  task: str,
  *,
  target_form: templates.TargetForm = "raw",
  separator: str = templates.SEPARATOR,
  trivia_target: templates.TriviaTarget = "value",
) -> list:
  """The preprocessors of one registration, from record to tokens that end with EOS."""
  return [
    functools.partial(drop_unusable, task=task),
    functools.partial(
      render,
      task=task,
      separator=separator,
      target_form=target_form,
      trivia_target=trivia_target,
    ),
    refuse_problems,
    seqio.preprocessors.tokenize,
    seqio.preprocessors.append_eos_after_trim,  # append_eos loses the EOS of what is cut
  ]


def postprocess(output: str, example=None, is_target: bool = False, *, task: str):
  """seqio's postprocess_fn: the answers of a target, the scored part of a model's output."""
  from promot_jax.metrics import postprocess as outputs

  if is_target:
    return [answer.decode() for answer in np.asarray(example["answers"]).tolist()]
  return outputs.postprocess(task, output)
