"""The text-to-text tasks: each a file that holds one value (`promot_jax.data.task`), found by its name.

Importing this package, or a task, is cheap: no seqio.  `register` puts names into seqio's registry: every
task with 0, 1 and 4 demonstrations, for every source and vocabulary, or one name.  No registration reads
a file.
"""

from tasks.catalog import (
  SHOTS,
  find,
  members,
  mixture_names,
  names,
  resolve,
  splits,
  task_names,
)
from tasks.reading import load_examples, register

__all__ = [
  "SHOTS",
  "find",
  "load_examples",
  "members",
  "mixture_names",
  "names",
  "register",
  "resolve",
  "splits",
  "task_names",
]
