"""Numbers of flags: whole, in range, or a wrong flag; never an overflow far from the command line."""

import argparse

_LARGEST = 2**31 - 1  # JAX's and C++'s counts are signed, of 32 bits


def whole_number(text: str) -> int:
  """A count: at least 1."""
  if (number := _number(text)) < 1:
    raise argparse.ArgumentTypeError(f"'{text[:20]}' must be a whole number from 1 to {_LARGEST}")
  return number


def number_from_0(text: str) -> int:
  """A position or a step: at least 0."""
  if (number := _number(text)) < 0:
    raise argparse.ArgumentTypeError(f"'{text[:20]}' must be a whole number from 0 to {_LARGEST}")
  return number


def numbers_from_0(text: str) -> list[int]:
  """Positions, joined by commas: '1,2,3'."""
  return [number_from_0(each.strip()) for each in text.split(",")]


def _number(text: str) -> int:
  """A whole number of up to 31 bits; -1 for everything else."""
  # `isdecimal` alone takes digits of other scripts, and Python refuses to convert very long texts.
  whole = text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= _LARGEST
  return int(text) if whole else -1
