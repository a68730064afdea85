"""Time of one training step, side by side with transformers (and PEFT) on torch, on the CPU.

  python benchmarks/train_step.py            both configurations, full fine-tuning and prompt tuning
  python benchmarks/train_step.py --quick    tiny shapes: does it run, do the losses agree

Both sides train the same network from the same weights on the same batches with Adafactor at the
same fixed rate; the losses of the first steps are compared before anything is timed.  Steps
alternate within one process, because a shared machine is never equally busy twice.  CPU time is the
process's over all threads; the wall time is what a user waits.  Read the ratios: absolute times
belong to the machine and to its load.
"""

import argparse
import dataclasses
import os
import statistics
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # or the time to compile means nothing
# Threads of one side must not spin while the other is timed.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers
from flax import nnx

from promot_jax import paths
from promot_jax.methods.prompt import FromArray, SoftPrompt
from promot_jax.models.t5 import T5, T5Config
from promot_jax.training import objectives, optimizers, schedules, state, step


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
  """One network and the shape of its batches; lengths in tokens."""

  name: str
  config: T5Config
  batch: int
  inputs: int = 128
  targets: int = 32
  prompt: int = 100


ANCHOR = Case(
  name="anchor",  # the configuration T5X was measured with
  config=T5Config(
    vocab_size=4096,
    width=256,
    heads=4,
    head_width=64,
    mlp_width=512,
    encoder_layers=4,
    decoder_layers=4,
  ),
  batch=16,
)
SMALL = Case(
  name="t5-1.1-small",
  config=T5Config(
    vocab_size=32128,
    width=512,
    heads=6,
    head_width=64,
    mlp_width=1024,
    encoder_layers=8,
    decoder_layers=8,
  ),
  batch=4,
)
QUICK = Case(
  name="quick",
  config=T5Config(
    vocab_size=512,
    width=32,
    heads=2,
    head_width=8,
    mlp_width=48,
    encoder_layers=2,
    decoder_layers=1,
  ),
  batch=4,
  inputs=24,
  targets=8,
  prompt=10,
)
RATES = {"full": 1e-3, "prompt": 0.3}
# T5X at this configuration: step CPU ms on two shared cores, dropout 0 (another day, other load).
T5X_ANCHOR_MS = {
  ("full", 0.0): 1117,
  ("prompt", 0.0): 935,
  ("full", 0.1): 892,
  ("prompt", 0.1): 1032,
}


def main() -> None:
  options = parse()
  cases = [QUICK] if options.quick else [ANCHOR, SMALL]
  torch.set_num_threads(options.threads)
  print(
    f"jax {jax.__version__}, torch {torch.__version__}, transformers {transformers.__version__},"
    f" {options.threads} threads, load {os.getloadavg()[0]:.1f}"
  )
  print(
    "config        method  dropout  |  CPU s min: ours  theirs  ratio  |  median: ours  theirs"
    "  ratio  |  wall min: ours  theirs  ratio  |  compile CPU s"
  )
  for case in cases:
    if options.case and case.name not in options.case:
      continue
    for method in options.methods:
      for dropout in options.dropout:
        compare(case, method, dropout, options)


def parse() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
  parser.add_argument("--quick", action="store_true", help="tiny shapes, three steps")
  parser.add_argument("--steps", type=int, default=None, help="timed steps of each side")
  parser.add_argument("--case", nargs="*", help="anchor, t5-1.1-small")
  parser.add_argument("--methods", nargs="*", default=["full", "prompt"])
  parser.add_argument("--dropout", nargs="*", type=float, default=[0.0])
  parser.add_argument("--chunk", type=int, default=None, help="vocabulary chunk of our loss")
  parser.add_argument("--threads", type=int, default=os.cpu_count())
  options = parser.parse_args()
  options.steps = options.steps or (3 if options.quick else 10)
  return options


def compare(case: Case, method: str, dropout: float, options: argparse.Namespace) -> None:
  """Times both sides in turn and prints one line."""
  case = dataclasses.replace(case, config=dataclasses.replace(case.config, dropout_rate=dropout))
  batches = [make_batch(case, seed) for seed in range(4)]
  weights = initial_weights(case.config)
  prompt = np.random.default_rng(5).uniform(-0.5, 0.5, (case.prompt, case.config.width))
  prompt = prompt.astype(np.float32) if method == "prompt" else None

  started = time.process_time()
  ours = our_step(case, weights, prompt, options.chunk)
  losses = [ours(batches[0])]
  compile_seconds = time.process_time() - started
  theirs = their_step(case, weights, prompt)
  their_losses = [theirs(batches[0])]
  losses.append(ours(batches[1]))
  their_losses.append(theirs(batches[1]))
  if dropout == 0.0:
    # The second loss has seen one update of each optimizer.
    np.testing.assert_allclose(losses[0], their_losses[0], rtol=2e-5)
    np.testing.assert_allclose(losses[1], their_losses[1], rtol=2e-3)

  times = {"ours": [], "theirs": []}
  for index in range(options.steps):
    batch = batches[index % len(batches)]
    sides = [("ours", ours), ("theirs", theirs)]
    for side, run in sides if index % 2 else reversed(sides):
      times[side].append(timed(run, batch))
  print(line(case, method, dropout, times, compile_seconds), flush=True)
  if case.name == "anchor" and (method, dropout) in T5X_ANCHOR_MS:
    best = min(cpu for cpu, _ in times["ours"])
    quoted = T5X_ANCHOR_MS[method, dropout]
    print(f"  T5X was measured at {quoted} ms CPU a step here; ours at least {1000 * best:.0f} ms")


def timed(run, batch) -> tuple[float, float]:
  """(CPU seconds, wall seconds) of one step."""
  cpu, wall = time.process_time(), time.perf_counter()
  run(batch)
  return time.process_time() - cpu, time.perf_counter() - wall


def line(case, method, dropout, times, compile_seconds) -> str:
  """Ratios below 1 mean that we are faster."""
  cells = []
  for reduce, index in ((min, 0), (statistics.median, 0), (min, 1)):
    ours, theirs = (reduce([pair[index] for pair in times[side]]) for side in ("ours", "theirs"))
    cells.append(f"{ours:.3f}  {theirs:.3f}  {ours / theirs:.2f}")
  label = f"{case.name:<13} {method:<7} {dropout:<7}"
  return f"{label}  |  {'  |  '.join(cells)}  |  {compile_seconds:.1f}"


def make_batch(case: Case, seed: int) -> dict[str, np.ndarray]:
  """Random tokens with padded ends, as numpy int32."""
  generator = np.random.default_rng(seed)
  size = case.config.vocab_size

  def tokens(length):
    values = generator.integers(2, size, (case.batch, length)).astype(np.int32)
    lengths = generator.integers(length // 2, length + 1, (case.batch, 1))
    return values * (np.arange(length) < lengths)

  targets = tokens(case.targets)
  decoder_inputs = np.concatenate([np.zeros_like(targets[:, :1]), targets[:, :-1]], axis=1)
  return {
    "encoder_input_tokens": tokens(case.inputs),
    "decoder_input_tokens": decoder_inputs,
    "decoder_target_tokens": targets,
    "decoder_loss_weights": (targets > 0).astype(np.float32),
  }


def initial_weights(config: T5Config) -> dict[str, np.ndarray]:
  """A fresh model's parameters by name."""
  leaves = paths.named_leaves(T5(config, nnx.Rngs(0)))
  return {name: np.asarray(leaf) for name, leaf in leaves.items()}


# --- Ours -----------------------------------------------------------------------------------------


def our_step(case: Case, weights: dict, prompt: np.ndarray | None, chunk: int | None):
  """step(batch) -> loss, keeping its state inside."""
  model = paths.replace_leaves(
    T5(case.config, nnx.Rngs(0)), {name: jnp.asarray(leaf) for name, leaf in weights.items()}
  )
  method = "full" if prompt is None else "prompt"
  if prompt is not None:
    model = SoftPrompt(length=len(prompt), initializer=FromArray(array=prompt)).attach(
      model, nnx.Rngs(0)
    )
  graphdef, trainable, frozen = paths.split(model, ".*" if prompt is None else ".*/prompt/.*")
  schedule = schedules.constant(RATES[method])
  optimizer = optimizers.adafactor(schedule, multiply_by_parameter_scale=False)
  train_step = step.make_train_step(
    graphdef, objectives.Supervised(vocabulary_chunk=chunk), optimizer, schedule
  )
  holder = {"state": state.create_state(trainable, optimizer)}
  key = jax.random.key(0) if case.config.dropout_rate else None

  def run(batch) -> float:
    holder["state"], metrics = train_step(holder["state"], frozen, batch, key)
    jax.block_until_ready(holder["state"])
    return float(metrics["loss"][0])

  return run


# --- transformers and PEFT ------------------------------------------------------------------------


def their_step(case: Case, weights: dict, prompt: np.ndarray | None):
  """step(batch) -> loss of a torch model with the same weights."""
  config = case.config
  their_config = transformers.T5Config(
    vocab_size=config.vocab_size,
    d_model=config.width,
    d_kv=config.head_width,
    d_ff=config.mlp_width,
    num_layers=config.encoder_layers,
    num_decoder_layers=config.decoder_layers,
    num_heads=config.heads,
    dropout_rate=config.dropout_rate,
    feed_forward_proj="gated-gelu",
    tie_word_embeddings=False,
    decoder_start_token_id=0,
    use_cache=False,
  )
  # transformers 5 makes it True whatever was given, and then the last table loaded wins.
  their_config.tie_word_embeddings = False
  model = transformers.T5ForConditionalGeneration(their_config)
  model.load_state_dict(torch_weights(weights, model.state_dict()))
  rate = RATES["full" if prompt is None else "prompt"]
  if prompt is not None:
    model = with_peft_prompt(model, prompt)
  model.train()
  optimizer = transformers.optimization.Adafactor(
    [parameter for parameter in model.parameters() if parameter.requires_grad],
    lr=rate,
    scale_parameter=False,
    relative_step=False,
    warmup_init=False,
  )

  def run(batch) -> float:
    labels = np.where(batch["decoder_loss_weights"] > 0, batch["decoder_target_tokens"], -100)
    inputs = torch.from_numpy(batch["encoder_input_tokens"]).long()
    loss = model(
      input_ids=inputs,
      attention_mask=(inputs > 0).long(),
      decoder_input_ids=torch.from_numpy(batch["decoder_input_tokens"]).long(),
      labels=torch.from_numpy(labels).long(),
    ).loss
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())

  return run


def with_peft_prompt(model, prompt: np.ndarray):
  """PEFT's prompt tuning with the given vectors before the encoder's input."""
  import peft

  settings = peft.PromptTuningConfig(
    task_type="SEQ_2_SEQ_LM", num_virtual_tokens=len(prompt), num_transformer_submodules=1
  )
  model = peft.get_peft_model(model, settings)
  (parameter,) = [value for value in model.parameters() if value.requires_grad]
  parameter.data.copy_(torch.from_numpy(prompt))
  return model


def torch_weights(weights: dict, wanted: dict) -> dict:
  """Our parameters under transformers' names; kernels are transposed there."""
  sublayers = {
    "encoder": [("attention", 0, "SelfAttention"), ("mlp", 1, "DenseReluDense")],
    "decoder": [
      ("self_attention", 0, "SelfAttention"),
      ("encoder_decoder_attention", 1, "EncDecAttention"),
      ("mlp", 2, "DenseReluDense"),
    ],
  }
  norms = {
    "encoder": ["pre_attention_layer_norm", "pre_mlp_layer_norm"],
    "decoder": [
      "pre_self_attention_layer_norm",
      "pre_cross_attention_layer_norm",
      "pre_mlp_layer_norm",
    ],
  }
  letters = {"query": "q", "key": "k", "value": "v", "out": "o"}
  found = {
    "shared.weight": weights["token_embedder/embedding"],
    "lm_head.weight": weights["decoder/logits_dense/kernel"].T,
  }
  for stack, parts in sublayers.items():
    found[f"{stack}.embed_tokens.weight"] = weights["token_embedder/embedding"]
    found[f"{stack}.final_layer_norm.weight"] = weights[f"{stack}/{stack}_norm/scale"]
    bias = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    found[bias] = weights[f"{stack}/relpos_bias/rel_embedding"].T
    layers = sum(
      name.startswith(f"{stack}/layers/") and name.endswith("wo/kernel") for name in weights
    )
    for layer in range(layers):
      ours, theirs = f"{stack}/layers/{layer}", f"{stack}.block.{layer}.layer"
      for name, index, module in parts:
        prefix = f"{ours}/{name}/"
        for path, value in weights.items():
          if path.startswith(prefix):
            linear = path.removeprefix(prefix).removesuffix("/kernel")
            found[f"{theirs}.{index}.{module}.{letters.get(linear, linear)}.weight"] = value.T
      for index, norm in enumerate(norms[stack]):
        found[f"{theirs}.{index}.layer_norm.weight"] = weights[f"{ours}/{norm}/scale"]
  return {name: torch.tensor(np.array(found[name])) for name in wanted}


if __name__ == "__main__":
  main()
