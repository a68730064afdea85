"""A run small enough to be killed many times: two stages, dropout, validation, checkpoints.

As a script: `tiny_run.py DIRECTORY [--steps N] [--step_seconds S] ...` trains both stages and prints
`SHA <digest of all parameters>`; failures of the library end it with their exit code.
"""

import argparse
import dataclasses
import functools
import hashlib
import pathlib
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from promot_jax import errors, paths, signals
from promot_jax.checkpoints.lease import Lease
from promot_jax.checkpoints.store import Store
from promot_jax.training.events import Console, Events, JsonLines
from promot_jax.training.loop import StageResult, train_stage
from promot_jax.training.objectives import Objective
from promot_jax.training.stages import Stage

WIDTH, HIDDEN, BATCH = 5, 7, 4


def tell(text: str) -> None:
  """A line in one piece: `print` writes its end apart, and threads would mix their lines."""
  sys.stdout.write(text + "\n")
  sys.stdout.flush()


class Prompt(nnx.Module):
  """An offset added to the input."""

  def __init__(self, rngs: nnx.Rngs):
    self.prompt = nnx.Param(0.1 * jax.random.normal(rngs.params(), (WIDTH,)))


class Layer(nnx.Module):
  """A linear layer without bias."""

  def __init__(self, rows: int, columns: int, rngs: nnx.Rngs):
    self.kernel = nnx.Param(jax.random.normal(rngs.params(), (rows, columns)) / rows**0.5)


class TinyModel(nnx.Module):
  """tanh MLP behind a prompt; predicts one number from x [B, 5]."""

  def __init__(self, rngs: nnx.Rngs, hidden: int = HIDDEN):
    self.prompt = Prompt(rngs)
    self.first = Layer(WIDTH, hidden, rngs)
    self.second = Layer(hidden, 1, rngs)

  def __call__(self, x: jax.Array, key: jax.Array | None = None) -> jax.Array:
    hidden = jnp.tanh((x + self.prompt.prompt[...]) @ self.first.kernel[...])
    if key is not None:
      hidden = jnp.where(jax.random.bernoulli(key, 0.9, hidden.shape), hidden / 0.9, 0)
    return (hidden @ self.second.kernel[...])[:, 0]


@dataclasses.dataclass(frozen=True)
class LeastSquares(Objective):
  """Squared error, summed over the batch."""

  def __call__(self, model, batch, *, teacher=None, key=None):
    squares = jnp.square(model(batch["x"], key) - batch["y"])
    loss = squares.sum()
    return loss, {"squared_error": (loss, jnp.float32(len(squares)))}

  def normalizer(self, batch):
    return batch["y"].shape[0]


def batch_of(step: int, *, poison: int | None = None) -> dict[str, np.ndarray]:
  """The batch of a step; step `poison` has a NaN in it."""
  random = np.random.default_rng([7, step])
  x = random.normal(size=(BATCH, WIDTH)).astype(np.float32)
  y = np.sin(x.sum(axis=1)).astype(np.float32)
  if step == poison:
    y[1] = np.nan
  return {"x": x, "y": y}


def validation(model: nnx.Module) -> dict[str, float]:
  """Mean squared error on held-out data."""
  held_out = [batch_of(10**6 + number) for number in range(3)]
  errors_of = [np.asarray(model(jnp.asarray(b["x"]))) - b["y"] for b in held_out]
  return {"error": float(np.mean(np.square(np.concatenate(errors_of))))}


def make_stage(name: str, trainable: str, steps: int, **changes) -> Stage:
  """A stage of the tiny run."""
  fields = {
    "optimizer": optax.adam,
    "learning_rate": optax.linear_schedule(0.05, 0.01, 100),
    "objective": LeastSquares(),
    "batch_size": BATCH,
    "eval_period": max(1, steps // 4),
    "save_period": 5,
    "log_period": 5,
    "metric": "error",
    "mode": "min",
    "keep_small_bytes": 0,
  }
  return Stage(name=name, trainable=trainable, steps=steps, **{**fields, **changes})


def digest(tree: object) -> str:
  """SHA-256 of all leaves with their names."""
  hashed = hashlib.sha256()
  for name, leaf in sorted(paths.named_leaves(tree).items()):
    array = np.asarray(leaf)
    hashed.update(f"{name} {array.dtype} {array.shape} ".encode() + array.tobytes())
  return hashed.hexdigest()


def main() -> int:
  """Runs both stages in a directory."""
  parser = argparse.ArgumentParser()
  parser.add_argument("directory", type=pathlib.Path)
  parser.add_argument("--steps", type=int, default=40)
  parser.add_argument("--step_seconds", type=float, default=0.0)
  parser.add_argument("--validation_seconds", type=float, default=0.0)
  parser.add_argument("--poison", type=int)
  parser.add_argument("--hidden", type=int, default=HIDDEN)
  parser.add_argument("--background_bytes", type=int, default=64 * 2**20)
  parser.add_argument("--die_between_stages", action="store_true")
  flags = parser.parse_args()

  def batches(step: int) -> dict[str, np.ndarray]:
    time.sleep(flags.step_seconds)
    tell(f"BATCH {step}")
    return batch_of(step, poison=flags.poison)

  def validate(model: nnx.Module) -> dict[str, float]:
    tell("VALIDATING")
    time.sleep(flags.validation_seconds)
    return validation(model)

  try:
    with Lease(flags.directory, report=functools.partial(print, flush=True)):
      events = Events(
        [Console(sys.stdout, seconds=1), JsonLines(flags.directory / "metrics.jsonl")]
      )
      model = TinyModel(nnx.Rngs(0), flags.hidden)
      result = StageResult(model=model, step=0, why="", history=[])
      with signals.catch(report=events.line, grace_seconds=20):
        for name, trainable in (("prompt", "prompt/.*"), ("model", "(first|second)/.*")):
          store = Store(
            flags.directory / name, report=events.line, background_bytes=flags.background_bytes
          )
          result = train_stage(
            make_stage(name, trainable, flags.steps),
            result.model,
            batches=batches,
            validate=validate,
            store=store,
            seed=3,
            events=events,
          )
          store.close()
          if flags.die_between_stages and name == "prompt":
            raise SystemExit(1)
      events.close()
    tell(f"SHA {digest(result.model)}")
    return 0
  except errors.PromotError as error:
    tell(f"{type(error).__name__}: {error}")
    return error.exit_code


if __name__ == "__main__":
  sys.exit(main())
