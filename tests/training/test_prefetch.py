"""Batches come in order from the thread, and its errors reach the loop."""

import threading
import time

import numpy as np
import pytest

from promot_jax.training.prefetch import Prefetcher, count_tokens


def batch_of(step):
  return {"encoder_input_tokens": np.full((2, 3), step, np.int32)}


def test_batches_come_in_order_from_the_first_step_to_the_last():
  with Prefetcher(batch_of, first=4, last=9, place=dict) as ahead:
    found = list(ahead)
  assert [item.step for item in found] == [4, 5, 6, 7, 8]
  assert all(item.batch["encoder_input_tokens"][0, 0] == item.step for item in found)


def test_an_error_is_raised_where_its_batch_is_due_and_again():
  def batches(step):
    if step == 2:
      raise ValueError("bad record")
    return batch_of(step)

  with Prefetcher(batches, first=0, last=9, place=dict) as ahead:
    assert [next(ahead).step, next(ahead).step] == [0, 1]
    for _ in range(2):
      with pytest.raises(ValueError, match="bad record"):
        next(ahead)


def test_closing_ends_the_thread_early():
  before = threading.active_count()
  ahead = Prefetcher(batch_of, first=0, last=10**9, place=dict)
  next(ahead)
  ahead.close()
  assert threading.active_count() == before


def test_only_a_few_batches_are_prepared_ahead():
  made = []

  def batches(step):
    made.append(step)
    return batch_of(step)

  with Prefetcher(batches, first=0, last=100, place=dict, depth=2):
    time.sleep(0.3)
    assert len(made) == 3  # two in the queue, one waiting


def test_tokens_are_inputs_that_are_no_padding_and_targets_with_weight():
  batch = {
    "encoder_input_tokens": np.array([[5, 0, 1, 0], [7, 1, 0, 0]]),
    "encoder_input_mask": np.array([[1, 1, 1, 0], [1, 1, 0, 0]], bool),
    "decoder_loss_weights": np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]]),
  }
  assert count_tokens(batch) == 8
  assert count_tokens({"x": np.ones(3)}) == 0


def test_without_a_mask_all_of_the_input_is_text():
  assert count_tokens({"encoder_input_tokens": np.array([[0, 1, 13], [5, 13, -1]])}) == 6
