"""Low-data subsamples: how many, which, and that they do not depend on the order of reading."""

import random

import pytest

from promot_jax import errors
from promot_jax.data import low_data
from promot_jax.data.low_data import Subsample

# Two targets for each input, as E2E has several.
TEXTS = [(f"input {number // 2}", f"target {number}") for number in range(1200)]


def chosen(name, texts=TEXTS):
  return [texts[number] for number in low_data.choose(low_data.of(name), texts, what="e2e")]


def test_names_are_those_of_four_sizes_five_times_for_training_and_for_choosing():
  assert len(low_data.NAMES) == 40 and len(set(low_data.NAMES)) == 40
  assert low_data.of("dev_500_4") == Subsample(part="dev", size=500, number=4)
  assert [low_data.of(name) for name in ("dev", "train_100", "train_101_0", "dev_50_5")] == [
    None
  ] * 4
  counts = [low_data.of(f"dev_{size}_0").count for size in low_data.SIZES]
  assert counts == [15, 30, 60, 150]


def test_the_splits_of_a_recipe_are_those_of_its_size_and_subsample():
  assert low_data.splits(size=200, number=3) == {"train": "train_200_3", "select": "dev_200_3"}
  for size, number in ((101, 0), (100, 5), (100, -1), ("100", None)):
    with pytest.raises(errors.ConfigError, match=r"no subsample.*50, 100, 200, 500.*0 to 4"):
      low_data.splits(size=size, number=number)


@pytest.mark.parametrize("size", low_data.SIZES)
def test_what_chooses_shares_no_input_with_what_trains(size):
  train, dev = chosen(f"train_{size}_0"), chosen(f"dev_{size}_0")
  assert (len(set(train)), len(set(dev))) == (size, round(0.3 * size))
  assert not {text for text, _ in train} & {text for text, _ in dev}


def test_a_subsample_depends_on_texts_and_number_alone():
  other = random.Random(0).sample(TEXTS, len(TEXTS))
  twice = [*other, *other]
  for name in ("train_50_0", "dev_50_0"):
    assert set(chosen(name)) == set(chosen(name, other)) == set(chosen(name, twice))
  assert set(chosen("train_50_0")) < set(chosen("train_100_0"))
  assert len(set(chosen("train_50_0")) & set(chosen("train_50_1"))) < 25


def test_too_few_examples_are_refused():
  with pytest.raises(errors.DataError, match=r"e2e: .* 'train_500_0', which has 500: 400 in all"):
    chosen("train_500_0", TEXTS[:400])
  unusable = [("", "")] * 5
  assert len(chosen("train_50_0", [*unusable, *TEXTS[:90]])) == 50
