"""Text out of a backbone: greedy, beam search, sampling, and the probability of given answers."""
