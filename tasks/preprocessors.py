"""seqio preprocessors: record -> text, and the refusal of records that have no text."""

import functools

import numpy as np
import seqio
import tensorflow as tf

from promot_jax import errors
from promot_jax.data import frames, joining, templates
from promot_jax.data.task import Task
from tasks import records

_NO_TEXT = "no text"
"""In place of a problem: the record takes no part."""


def drop_unusable(dataset: tf.data.Dataset, *, task: Task) -> tf.data.Dataset:
  """Leaves out what takes no part: SNLI's items without a majority label."""
  return dataset if task.usable is None else dataset.filter(task.usable)


def render(
  dataset: tf.data.Dataset,
  *,
  task: Task,
  separator: str = templates.SEPARATOR,
  before_answer: str = templates.BLANK,
  target_form: templates.TargetForm = "raw",
  output_features=None,
) -> tf.data.Dataset:
  """Text of every record by its template, the demonstrations of the source before it.

  The result has `inputs` and `targets` (text), `answers` (all accepted texts, raw), of a ranked task
  `answer_choices`, `problem`: empty, or why the record could not be rendered, and the arrays of the task's further
  features.  A record for which the template writes nothing is left out.
  """
  kinds = {name: feature.kind for name, feature in task.features.items()}

  def text(record, demonstrations=()):
    # What a record without text has in place of the arrays, in their number.
    nothing = [[]] * task.ranked + [
      np.zeros([0] * kind.rank, kind.dtype) for kind in kinds.values()
    ]
    shown = [(first.decode(), second.decode()) for first, second in demonstrations]
    try:
      # In here, because making the record may raise as well.
      found = record()
      one = task.render(found)
      # The raw targets in demonstrations, whatever form the query's has.
      prompt = templates.join_shots(
        shown, one.input, separator=separator, before_answer=before_answer
      )
      arrays = made(found, prompt)
    except templates.NoText:
      return "", "", [], _NO_TEXT, *nothing
    except errors.DataError as problem:
      return "", "", [], str(problem), *nothing
    # An empty target stays empty, also between sentinels.
    target = templates.target_text(one.target, target_form) if one.target else ""
    return prompt, target, list(one.answers), "", *[list(one.choices)] * task.ranked, *arrays

  def made(record, prompt):
    try:
      return [
        feature.array(
          name,
          record,
          vocabulary=output_features["inputs"].vocabulary.plain,
          after=prompt,
          target=target_form,
        )
        for name, feature in task.features.items()
      ]
    except errors.DataError as error:
      raise errors.DataError(f"{task.name}: {error}") from error

  text_spec = tf.TensorSpec([], tf.string)
  outputs = {
    "inputs": text_spec,
    "targets": text_spec,
    "answers": tf.TensorSpec([None], tf.string),
    "problem": text_spec,
    **({"answer_choices": tf.TensorSpec([None], tf.string)} if task.ranked else {}),
    **{name: tf.TensorSpec([None] * kind.rank, kind.dtype) for name, kind in kinds.items()},
  }
  rendered = records.mapped(task, dataset, text, outputs)
  # Only what is read later: TensorFlow would carry the source's fields along.
  chosen = rendered.map(lambda element: {name: element[name] for name in outputs})
  return chosen.filter(lambda element: element["problem"] != _NO_TEXT)


def refuse_problems(dataset: tf.data.Dataset) -> tf.data.Dataset:
  """Stops at the first record that could not be rendered.

  `promot_jax.data.examples` leaves this step out and counts such records instead.
  """

  def checked(element):
    # The graph has no exceptions: an assertion that what follows depends on.
    with tf.control_dependencies(
      [tf.debugging.Assert(element["problem"] == "", [element["problem"]])]
    ):
      return {name: tf.identity(value) for name, value in element.items()}

  return dataset.map(checked)


def tokenize(dataset: tf.data.Dataset, *, output_features) -> tf.data.Dataset:
  """Token ids of both texts, or of an input and its answer as one text; the texts are kept beside.

  For two texts this is seqio's `tokenize`.
  """
  # A vocabulary of somebody else's knows no joining.
  plain = getattr(output_features["inputs"].vocabulary, "plain", None)
  if plain is None or not plain.joining.one_text:
    return seqio.preprocessors.tokenize(dataset, output_features)

  def python(text: bytes, answer: bytes):
    texts = (part.decode("utf-8", errors="replace") for part in (text, answer))
    return [np.asarray(ids, np.int32) for ids in joining.texts_to_tokens(plain, *texts)]

  def tokens(element):
    sides = ("inputs", "targets")
    rows = tf.numpy_function(python, [element[side] for side in sides], [tf.int32, tf.int32])
    result = {**element, **{f"{side}_pretokenized": element[side] for side in sides}}
    for side, row in zip(sides, rows):
      row.set_shape([None])
      result[side] = row
    return result

  return dataset.map(tokens, num_parallel_calls=tf.data.AUTOTUNE)


def frame_after_trim(
  dataset: tf.data.Dataset, *, output_features, sequence_length=None
) -> tf.data.Dataset:
  """Puts bos, EOS or separator around each text, which loses its end where it is too long.

  For T5 this is seqio's `append_eos_after_trim`.
  """
  around = {side: frames.of_feature(output_features[side], side) for side in ("inputs", "targets")}

  def framed(element):
    result = dict(element)
    for side, frame in around.items():
      tokens = element[side]
      # Cut before the frame is put around, so that the end stays.
      limit = (sequence_length or {}).get(side)
      if limit is not None:
        tokens = tokens[: max(0, limit - len(frame))]
      prefix, suffix = (tf.constant(ids, tokens.dtype) for ids in (frame.prefix, frame.suffix))
      result[side] = tf.concat([prefix, tokens, suffix], axis=0)
    return result

  return dataset.map(framed, num_parallel_calls=tf.data.AUTOTUNE)


def pipeline(
  task: Task,
  *,
  target_form: templates.TargetForm = "raw",
  separator: str = templates.SEPARATOR,
  before_answer: str = templates.BLANK,
) -> list:
  """The preprocessors of one registration, from record to tokens in their family's frame."""
  return [
    functools.partial(drop_unusable, task=task),
    functools.partial(
      render,
      task=task,
      separator=separator,
      before_answer=before_answer,
      target_form=target_form,
    ),
    refuse_problems,
    tokenize,
    frame_after_trim,
  ]


def postprocess(output: str, example=None, is_target: bool = False, *, task: Task):
  """seqio's postprocess_fn: the answers of a target, the scored part of a model's output."""
  if is_target:
    return [answer.decode() for answer in np.asarray(example["answers"]).tolist()]
  return task.postprocess(output)
