"""Flags of the commands that write checkpoints of others' weights."""

import argparse
from collections.abc import Callable

from promot_jax.cli.flag_numbers import number_from_0, whole_number


def convert(parser: argparse.ArgumentParser) -> None:
  """Those of `promot convert`."""
  parser.add_argument("source", metavar="SOURCE", help="hf:..., a path, gs://..., or a model_dir")
  parser.add_argument("output", metavar="OUTPUT", help="new folder, or file for npz and prompt")
  parser.add_argument(
    "--to",
    required=True,
    metavar="hf|t5x|npz|step|prompt|peft|method",
    help="hf: config.json and safetensors; t5x; npz or step: our own; prompt: .npy of the soft "
    "prompt only; peft: adapter of what the method trained; method: what a run trained beside "
    "its backbone, for --method; or another format that a method has",
  )
  parser.add_argument(
    "--vocab_size",
    type=whole_number,
    metavar="N",
    help="rows of the vocabulary: fills a Hugging Face source up, or trims what is written as hf",
  )
  parser.add_argument(
    "--task", type=number_from_0, metavar="N", help="which prompt of a bank, from 0"
  )
  parser.add_argument("--base_model", metavar="NAME", help="peft: the model that it adapts")
  _shared(parser)
  parser.set_defaults(gin_search_paths=".", gin_allow_imports="", gin_file=None)


def combine(
  parser: argparse.ArgumentParser, *, gin_settings: Callable[[argparse.ArgumentParser], None]
) -> None:
  """Those of `promot combine`; `gin_settings` adds those of gin files and their macros."""
  parser.add_argument(
    "sources", nargs="+", metavar="SOURCE", help="networks: hf:..., paths, gs://..., or model_dirs"
  )
  parser.add_argument("output", metavar="OUTPUT", help="new folder")
  parser.add_argument(
    "--operation",
    required=True,
    metavar="NAME",
    help="a file of gin/operations: wise_ft, lines, soup, task_arithmetic, ties, dare, or chosen on validation"
    " greedy_soup, wise_ft_sweep; its macros are set by --gin.NAME=VALUE",
  )
  parser.add_argument(
    "--base",
    metavar="SOURCE",
    help="the network that the others began with (default: what their runs say)",
  )
  parser.add_argument("--to", default="hf", metavar="hf|t5x|step", help="format (default hf)")
  gin_settings(parser)
  _shared(parser)
  parser.set_defaults(vocab_size=None)


def _shared(parser: argparse.ArgumentParser) -> None:
  """What both read of their sources, and how both write."""
  parser.add_argument(
    "--model",
    metavar="SIZE|DIR",
    help="the backbone where the source does not tell: t5_1_1_small, ..., or a folder with config.json",
  )
  parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], help="default: as is")
  parser.add_argument(
    "--step",
    type=number_from_0,
    default=0,
    metavar="N",
    help="step number (t5x, step)",
  )
  parser.add_argument("--t5x_layout", choices=["legacy", "orbax"], default="legacy")
  parser.add_argument("--scanned", action="store_true", help="t5x: in its scanned layout")
  parser.add_argument(
    "--merge",
    action="store_true",
    help="hf, t5x, npz, step: what LoRA, IA3, BitFit or top layers trained becomes part of the weights",
  )
  parser.add_argument("--allow_nan", action="store_true", help="do not refuse NaN and infinity")
  parser.add_argument(
    "--checkpoint",
    default="chosen",
    metavar="chosen|pretrained|STAGE[:STEP]",
    help="which weights of a model directory (default: the last stage's chosen step)",
  )
  # What reading a model directory asks for.
  parser.set_defaults(coordinator_address=None, process_count=1, process_id=None)
