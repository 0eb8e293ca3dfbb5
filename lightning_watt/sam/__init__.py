"""SAM, the Sustainable-Accuracy Metric: the one place of alpha, beta and the unit of E.

- `score`: the function `sustainable_accuracy`, and `Scoring`, which also gives CO2e and cost. It needs no torch for numbers.
- `metric`: `SustainableAccuracy`, the same as a torchmetrics metric.
"""
