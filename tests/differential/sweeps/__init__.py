"""Requests that are drawn up from tables, beside those of the corpus that are written by hand."""
