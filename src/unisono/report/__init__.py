"""The report: one self-contained HTML page, made from plain values."""
