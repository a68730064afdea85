"""Scores of generated text, 0 to 100, through the field's own libraries; no JAX, no TensorFlow.

One module for each metric.  A metric is a small frozen dataclass called as
`metric(targets, predictions)`; the lower-case name in its module has the default settings and can
stand in a seqio task's `metric_fns`: `accuracy.accuracy`, `exact_match.exact_match`, `bleu.bleu`,
`rouge.rouge`, `format_share.FormatShare()`, `format_share.LanguageShare(is_word=...)`.
`confidence.estimate` adds standard errors to any of them.
"""
