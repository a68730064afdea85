"""One training step of either side as a function of a batch that gives the loss.

Ours is what `promot train` runs: the jitted step of promot_jax.training, whose state is updated in
place.  Theirs is the usual three lines of torch.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
import torch

from promot_jax import paths
from promot_jax.training import objectives, schedules, state, step


class OurStep:
  """step(batch) -> loss of a model of ours."""

  def __init__(
    self,
    model,
    trainable: paths.Patterns,
    optimizer: Callable[[schedules.Schedule], optax.GradientTransformation],
    rate: float,
    *,
    chunk: int | None = None,
    key: jax.Array | None = None,
    objective: objectives.Objective | None = None,
    teacher: Any = None,
  ):
    """`optimizer` takes a schedule, `trainable` are patterns; `key` is for dropout, None: none.

    Without an `objective` it is cross-entropy with `chunk`; `teacher` is for one that asks it.
    """
    schedule = schedules.constant(rate)
    made = optimizer(schedule)
    graphdef, own, self.frozen = paths.split(model, trainable)
    self.state = state.create_state(own, made)
    self.key, self.teacher = key, teacher
    objective = objective or objectives.Supervised(vocabulary_chunk=chunk)
    self.step = step.make_train_step(graphdef, objective, made, schedule)

  def __call__(self, batch: dict[str, np.ndarray]) -> float:
    self.state, metrics = self.step(self.state, self.frozen, batch, self.key, self.teacher)
    jax.block_until_ready(self.state)
    return float(metrics["loss"][0])

  def compile(self, batch: dict[str, np.ndarray]) -> jax.stages.Compiled:
    """Compiles for the batch's shapes and uses that program from now on."""
    lowered = self.step.lower(self.state, self.frozen, batch, self.key, self.teacher)
    self.step = lowered.compile()
    return self.step


class TheirStep:
  """step(batch) -> loss of a model of transformers or PEFT; what needs a gradient is trained."""

  def __init__(self, model, optimizer: Callable[[list], torch.optim.Optimizer]):
    """`optimizer` takes the list of the trained parameters."""
    self.model = model.train()
    self.optimizer = optimizer([leaf for leaf in model.parameters() if leaf.requires_grad])
    self.decoder_only = not model.config.is_encoder_decoder

  def __call__(self, batch: dict[str, np.ndarray]) -> float:
    loss = self._decoder_only(batch) if self.decoder_only else self._encoder_decoder(batch)
    self.optimizer.zero_grad()
    loss.backward()
    self.optimizer.step()
    return float(loss.detach())

  def _encoder_decoder(self, batch: dict[str, np.ndarray]) -> torch.Tensor:
    return self.model(**self._given(batch), labels=_long(_labels(batch))).loss

  @staticmethod
  def _given(batch: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {
      "input_ids": _long(batch["encoder_input_tokens"]),
      "attention_mask": _long(batch["encoder_input_mask"]),
      "decoder_input_ids": _long(batch["decoder_input_tokens"]),
    }

  def _decoder_only(self, batch: dict[str, np.ndarray]) -> torch.Tensor:
    """Inputs without padding, so that the last columns predict the targets; no other logits."""
    targets = batch["decoder_target_tokens"]
    joined = np.concatenate([batch["encoder_input_tokens"], targets[:, :-1]], axis=1)
    logits = self.model(
      input_ids=_long(np.maximum(joined, 0)),
      attention_mask=_long(joined >= 0),
      logits_to_keep=targets.shape[1],
    ).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), _long(_labels(batch)).flatten())


def _labels(batch: dict[str, np.ndarray]) -> np.ndarray:
  """Targets with the number that torch leaves out of a loss in place of padding."""
  return np.where(batch["decoder_loss_weights"] > 0, batch["decoder_target_tokens"], -100)


def _long(array: np.ndarray) -> torch.Tensor:
  return torch.from_numpy(np.asarray(array)).long()
