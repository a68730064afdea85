"""A part of a file for validation: of every label its share, no text on both sides, the same each time."""

import collections

from promot_jax.data import file_split


def test_every_label_gives_its_share_and_the_choice_is_the_seeds():
  inputs = [f"text {n}" for n in range(60)]
  labels = ["a"] * 40 + ["b"] * 16 + ["c"] * 3 + ["d"]
  found = file_split.validation(inputs, labels, share=0.25, seed=0)
  assert collections.Counter(labels[place] for place in found) == {"a": 10, "b": 4, "c": 1}
  assert found == file_split.validation(inputs, labels, share=0.25, seed=0) == sorted(found)
  assert found != file_split.validation(inputs, labels, share=0.25, seed=1)


def test_the_order_of_the_rows_does_not_matter():
  inputs = [f"text {n}" for n in range(30)]
  found = file_split.validation(inputs, [""] * 30, share=0.2, seed=3)
  turned = file_split.validation(inputs[::-1], [""] * 30, share=0.2, seed=3)
  assert [29 - place for place in reversed(turned)] == found and len(found) == 6


def test_copies_of_a_text_are_on_one_side():
  inputs = [f"Text  {n % 10}" if n < 10 else f"text {n % 10}" for n in range(20)]
  found = file_split.validation(inputs, ["x"] * 20, share=0.3, seed=0)
  assert len(found) == 6 and {place % 10 for place in found if place < 10} == {
    place % 10 for place in found if place >= 10
  }
