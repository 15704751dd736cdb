"""Training: configuration, data, loss, metrics, the Lightning module, exact resume and the report.

Nothing is imported here, so that ``import mlip.training`` stays cheap; import the file that is needed,
for instance ``from mlip.training.run import run_training``.
"""
