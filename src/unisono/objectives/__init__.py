"""Losses over representations and scores, and how several of them are combined."""
