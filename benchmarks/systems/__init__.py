"""The effect of each published system against its own baseline: one module a system, one row or more in each."""
