"""Computed tokens for each needed one on RTE: length buckets against the usual alternatives.

  python benchmarks/padding.py --rte GLUE_RTE_FOLDER --vocabulary T5_SENTENCEPIECE_MODEL

Without arguments the data is read from PROMOT_SHARED_DATA (see tests/conftest.py).  Needs neither
TensorFlow nor JAX; takes seconds.
"""

import argparse
import csv
import os
import pathlib
import time

import numpy as np

from promot_jax.data.batches import EvalBatches, TrainBatches
from promot_jax.data.buckets import Buckets
from promot_jax.data.examples import Examples, LengthReport
from promot_jax.data.sentencepiece_vocabulary import SentencePiece
from promot_jax.token_ids import T5
from tasks import rte

FIXED = 512  # the input length of T5X's fine-tuning recipes


def read(folder: pathlib.Path, vocabulary: SentencePiece) -> Examples:
  """The training split of RTE with T5 tokens."""
  with open(folder / "train.tsv", newline="") as lines:
    rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
  records = [
    {"premise": row["sentence1"], "hypothesis": row["sentence2"], "label": row["label"]}
    for row in rows
  ]
  texts = [rte.TASK.render(record) for record in records]
  return Examples(
    name="rte",
    split="train",
    features={
      "inputs": [np.array([*vocabulary.encode(text.input), 1], np.int32) for text in texts],
      "targets": [np.array([*vocabulary.encode(text.target), 1], np.int32) for text in texts],
      "prompt_ids": np.zeros(len(texts), np.int32),
    },
    records=records,
    lengths=LengthReport(examples=len(texts), inputs_limit=None, targets_limit=None),
  )


def main() -> None:
  root = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"
  shared = pathlib.Path(os.environ.get("PROMOT_SHARED_DATA", root))
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--rte", type=pathlib.Path, default=shared / "glue_rte")
  parser.add_argument("--vocabulary", default=str(shared / "vocab" / "t5_spiece.model"))
  options = parser.parse_args()
  examples = read(options.rte, SentencePiece(options.vocabulary))
  lengths = np.array([len(tokens) for tokens in examples.inputs])
  longest = int(lengths.max())
  targets = (max(len(tokens) for tokens in examples.targets),)
  print(
    f"RTE: {len(examples)} examples, inputs {lengths.mean():.0f} tokens on average, {longest} at most"
  )
  print(f"{'batch':>5}  {'way':42} {'ratio':>6}  {'shapes':>6}")
  for batch_size in (16, 32, 64):
    every = Buckets(inputs=tuple(range(1, longest + 1)), targets=targets)
    ways = {
      f"all inputs padded to {FIXED}": {"buckets": Buckets(inputs=(FIXED,), targets=targets)},
      "all inputs padded to the longest": {"buckets": Buckets(inputs=(longest,), targets=targets)},
      "each batch to its longest, not sorted": {"buckets": every, "batches_per_window": 1},
      "sorted windows, 4 buckets": {"bucket_counts": (4, 2)},
      "sorted windows, 6 buckets (default)": {},
      "sorted windows, 8 buckets": {"bucket_counts": (8, 2)},
      "sorted windows, any length": {"buckets": every},
    }
    for way, arguments in ways.items():
      batches = TrainBatches(examples, batch_size=batch_size, special=T5, **arguments)
      steps = 4 * len(examples) // batch_size
      shapes = {batches.shape(step) for step in range(steps)}
      ratio = batches.padding_ratio(steps)
      print(f"{batch_size:5}  {way:42} {ratio:6.3f}  {len(shapes):6}")
    evaluation = EvalBatches(examples, batch_size=batch_size, special=T5)
    shapes = {batch["encoder_input_tokens"].shape for batch, _ in evaluation}
    print(f"{batch_size:5}  {'evaluation':42} {evaluation.padding_ratio():6.3f}  {len(shapes):6}")
  batches = TrainBatches(examples, batch_size=64, special=T5)
  started = time.perf_counter()
  for step in range(400):
    batches(step)
  print(f"making a batch of 64 takes {(time.perf_counter() - started) / 400 * 1e3:.2f} ms")


if __name__ == "__main__":
  main()
