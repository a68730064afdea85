"""Trained factors in adapters of PEFT."""

import pathlib

from promot_jax.checkpoints.peft import ia3
from promot_jax.methods.formats import PEFT, Context, Format, Formats, Stored, Trained


def _read_adapter(path: pathlib.Path, context: Context) -> Stored:
  found = ia3.read_ia3_adapter(path, context.config)
  return Stored(
    leaves=found.arrays,
    settings={"outputs": found.outputs, "inputs": found.inputs},
    notes={"base_model": found.base_model},
  )


def _write_adapter(path: pathlib.Path, trained: Trained, context: Context) -> pathlib.Path:
  leaves = trained.of_task(context.task).leaves
  return ia3.write_ia3_adapter(path, leaves, context.config, base_model=context.base_model or "")


FORMATS: Formats = {PEFT: Format(types=ia3.TYPES, read=_read_adapter, write=_write_adapter)}
