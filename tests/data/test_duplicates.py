"""Repeated texts, counted by hand."""

from promot_jax.data import duplicates


def test_repeated_inputs_and_contradicting_targets_are_counted():
  found = duplicates.repeated(["a b", "c", "A  b", "a b ", "c"], ["1", "2", "1", "0", "2"])
  assert found == duplicates.Repeated(
    extra=3, contradicting=1, first=(0, 2), first_contradicting=(0, 3)
  )
  assert duplicates.repeated(["a", "b"], ["1", "1"]) == duplicates.Repeated()


def test_an_overlap_names_the_first_place_on_the_other_side():
  assert duplicates.shared(["x", "É\n"], ["y", "e\u0301", "é"]) == [(1, 1)]
