"""Trained factors in adapters of PEFT."""

import pathlib

from promot_jax.checkpoints.peft import ia3
from promot_jax.methods import files


def _read_adapter(path: pathlib.Path, context: files.Context) -> files.Stored:
  found = ia3.read_ia3_adapter(path, context.config)
  return files.Stored(
    leaves=found.arrays,
    settings={"outputs": found.outputs, "inputs": found.inputs},
    notes={"base_model": found.base_model},
  )


def _write_adapter(
  path: pathlib.Path, trained: files.Trained, context: files.Context
) -> pathlib.Path:
  leaves = trained.of_task(context.task).leaves
  return ia3.write_ia3_adapter(path, leaves, context.config, base_model=context.base_model or "")


FORMATS: files.Formats = {
  files.PEFT: files.Format(types=ia3.TYPES, read=_read_adapter, write=_write_adapter)
}
