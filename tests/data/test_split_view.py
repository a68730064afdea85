"""What is said of a split, on a handful of texts."""

from promot_jax.data import split_view
from promot_jax.data.split_view import Texts

TRAIN = Texts(
  where=["t:2", "t:3", "t:4", "t:5"], inputs=["a b", "c", "A  b", "d"], targets=["1", "0", "0", "0"]
)
VALIDATION = Texts(where=["v:2", "v:3"], inputs=["e", "C"], targets=["1", "0"])


def test_labels_are_counted_and_many_targets_only_numbered():
  assert split_view.targets_line(TRAIN) == "'0' 3, '1' 1"
  many = Texts(where=[""] * 30, inputs=[""] * 30, targets=[str(n) for n in range(30)])
  assert split_view.targets_line(many) == "30 different ones"


def test_lengths_say_what_is_cut():
  assert (
    split_view.lengths_line([3, 5, 9], 8)
    == "3 to 9 tokens, 5 in the middle, 1 longer than 8 and cut"
  )
  assert split_view.lengths_line([3, 3], 8) == "3 tokens (at most 8)"
  assert split_view.lengths_line([3, 3], None) == "3 tokens"


def test_copies_and_overlaps_are_named_by_line():
  assert split_view.copies_line(TRAIN) == (
    "1 (t:2 and t:4); 1 of them with another target (t:2 and t:4: '1' and '0')"
  )
  assert split_view.copies_line(VALIDATION) == "none"
  assert split_view.shared_line(VALIDATION, TRAIN) == "1 of 2 (50.0 %; v:3 and t:3)"
  assert split_view.shared_line(TRAIN, Texts(where=[], inputs=[], targets=[])) == "none"
  assert split_view.as_json(VALIDATION, {"train": TRAIN}) == {
    "examples": 2,
    "targets": {"1": 1, "0": 1},
    "repeated": 0,
    "contradicting": 0,
    "shared": {"train": 1},
  }
