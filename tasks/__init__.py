"""The text-to-text tasks: their names here, their seqio registrations in one module for each.

Importing this package is cheap.  Importing a module, for example `tasks.rte`, imports seqio and
registers that task with 0, 1 and 4 demonstrations, for every source and vocabulary; `tasks.all`
imports every module.  No registration reads a file.
"""

from tasks.catalog import (
  MIXTURES,
  SHOTS,
  TASKS,
  Splits,
  TaskInfo,
  information,
  members,
  names,
  resolve,
  splits,
)
from tasks.on_demand import register

__all__ = [
  "MIXTURES",
  "SHOTS",
  "TASKS",
  "Splits",
  "TaskInfo",
  "information",
  "members",
  "names",
  "register",
  "resolve",
  "splits",
]
