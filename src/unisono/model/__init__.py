"""A model: from a table to something that predicts, embeds, explains itself, and can be saved."""

from unisono.model.estimator import Model

__all__ = ["Model"]
