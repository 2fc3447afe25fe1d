"""One file per modality: how a column is recognised, a cell decoded, statistics fitted, and tokens made."""
