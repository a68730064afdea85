"""Frames around texts: what is cut and what stays."""

import numpy as np
import pytest

from promot_jax.data import token_families
from promot_jax.data.frames import Frame

LLAMA = Frame(prefix=(1,), suffix=(13, 14))
FRAMED = LLAMA.around([50, 51, 52, 53])


def test_a_frame_goes_around_a_text():
  assert FRAMED.tolist() == [1, 50, 51, 52, 53, 13, 14] and FRAMED.dtype == np.int32
  assert len(LLAMA) == 3


@pytest.mark.parametrize(
  ("limit", "at", "expected"),
  [
    (5, "end", [1, 50, 51, 13, 14]),
    (5, "start", [1, 52, 53, 13, 14]),
    (4, "start", [1, 53, 13, 14]),
    (7, "end", FRAMED.tolist()),
  ],
)
def test_a_long_text_loses_its_start_or_end_and_keeps_its_frame(limit, at, expected):
  assert LLAMA.cut(FRAMED, limit, at=at).tolist() == expected


def test_without_a_frame_only_the_text_is_cut():
  tokens = np.array([5, 6, 7])
  assert Frame().cut(tokens, 2, at="end").tolist() == [5, 6]
  assert Frame().cut(tokens, 2, at="start").tolist() == [6, 7]


def test_each_family_frames_as_its_models_were_trained():
  framed = {
    family: token_families.frames(family, bos=7, eos=9, separator=(13,))
    for family in token_families.FAMILIES
  }
  text = [50]
  assert {
    family: (inputs.around(text).tolist(), targets.around(text).tolist())
    for family, (inputs, targets) in framed.items()
  } == {
    "t5": ([50, 9], [50, 9]),
    "bart": ([7, 50, 9], [7, 50, 9]),
    "gpt2": ([50, 13], [50, 9]),
    "llama": ([7, 50, 13], [50, 9]),
  }
