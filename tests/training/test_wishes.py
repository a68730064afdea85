"""What is due between two steps: at once in one process, by a vote that travels with a step in several."""

import pytest

from promot_jax import hosts, signals
from promot_jax.training.wishes import Wish, Wishes


def test_a_process_that_is_alone_does_what_it_wishes():
  stop = signals.Stop()
  wishes = Wishes(stop)
  assert wishes.now(overdue=False) == Wish.NOTHING
  assert wishes.now(overdue=True) == Wish.SAVE
  stop.requested = "SIGTERM"
  assert wishes.now(overdue=True) == Wish.STOP
  assert wishes.vote(overdue=True) == Wish.NOTHING  # nobody else asks


class Collected:
  """Stands for `hosts.Votes`: keeps what this process said."""

  said: list[int]

  def __init__(self):
    Collected.said = []

  def cast(self, number):
    self.said.append(int(number))
    return number


@pytest.fixture
def several(monkeypatch):
  """Makes this process the `number`-th of several."""

  def become(number):
    monkeypatch.setattr(hosts, "several", lambda: True)
    monkeypatch.setattr(hosts, "is_first", lambda: number == 0)
    monkeypatch.setattr(hosts, "Votes", Collected)
    stop = signals.Stop()
    return stop, Wishes(stop)

  return become


@pytest.mark.parametrize(("number", "said"), [(0, Wish.SAVE), (1, Wish.NOTHING)])
def test_only_the_first_of_several_looks_at_its_clock(several, number, said):
  _, wishes = several(number)
  wishes.vote(overdue=True)
  assert Collected.said == [said]


def test_one_of_several_does_nothing_before_all_have_decided(several):
  stop, wishes = several(1)
  stop.requested = "SIGTERM"
  vote = wishes.vote(overdue=False)
  assert wishes.now(overdue=True) == Wish.NOTHING
  wishes.hear(vote)
  assert wishes.now(overdue=False) == Wish.STOP


def test_a_checkpoint_grants_the_wish_for_one_and_not_that_to_stop(several):
  _, wishes = several(0)
  wishes.hear(Wish.SAVE)
  wishes.saved()
  assert wishes.now(overdue=True) == Wish.NOTHING
  wishes.hear(Wish.STOP)
  wishes.saved()
  assert wishes.now(overdue=False) == Wish.STOP
