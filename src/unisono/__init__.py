"""Unisono: one model for tables of any modality."""

__version__ = "0.1.0"
