"""Trained prompts in files: adapters of PEFT, and NumPy's and T5X's."""

import pathlib

import numpy as np

from promot_jax.checkpoints import prompt_files
from promot_jax.checkpoints.peft import prompt_tuning, reader
from promot_jax.methods.formats import PEFT, PROMPT, Context, Format, Formats, Stored, Trained


def _stored(prompt: np.ndarray, *, stack: str = "encoder", **notes: object) -> Stored:
  tasks = prompt.shape[0] if prompt.ndim == 3 else 1
  return Stored(
    leaves={f"{stack}/prompt/prompt": prompt},
    settings={"length": prompt.shape[-2] if prompt.ndim > 1 else 1, "tasks": tasks},
    notes=notes,
  )


def _read_adapter(path: pathlib.Path, context: Context) -> Stored:
  found = prompt_tuning.read_prompt_adapter(path, context.config)
  stack = "encoder" if found.encoder_decoder else "decoder"
  return _stored(found.prompt, stack=stack, base_model=found.base_model)


def _write_adapter(path: pathlib.Path, trained: Trained, context: Context) -> pathlib.Path:
  # The values are the same; PEFT has another type for prompts that an encoder has computed.
  through_network = trained.method.network is not None
  return prompt_tuning.write_prompt_adapter(
    path,
    _prompt(trained, context),
    context.config,
    base_model=context.base_model or "",
    kind=reader.P_TUNING if through_network else reader.PROMPT_TUNING,
  )


def _read_prompt(path: pathlib.Path, context: Context) -> Stored:
  return _stored(prompt_files.read_prompt(path, name=context.name))


def _write_prompt(path: pathlib.Path, trained: Trained, context: Context) -> pathlib.Path:
  return prompt_files.write_numpy(path, _prompt(trained, context))


def _prompt(trained: Trained, context: Context) -> np.ndarray:
  # A prompt is the method's one parameter; of several methods together its own leaves come here.
  (prompt,) = trained.of_task(context.task).leaves.values()
  return prompt


FORMATS: Formats = {
  PEFT: Format(types=prompt_tuning.TYPES, read=_read_adapter, write=_write_adapter),
  PROMPT: Format(read=_read_prompt, write=_write_prompt, alone=True),
}
