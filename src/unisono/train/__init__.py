"""Training: the loop, its settings and plan, optimisers, schedules, checkpoints, devices and distribution.

The package knows nothing of tables and recipes: it trains anything that keeps the contracts in ``protocols``.
"""
