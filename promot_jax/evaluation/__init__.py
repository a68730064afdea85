"""Measuring adapted models: few-shot evaluation and reports.

`evaluator` runs a model and needs JAX.  Everything else here works on result files alone and imports
neither JAX nor TensorFlow: `results` (what is stored and how), `averages` (Norm. Avg),
`published` (the figures quoted from the paper), `tables`, `plots`, `report` and `html`.
"""
