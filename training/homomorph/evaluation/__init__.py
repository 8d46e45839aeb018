"""Measures the quality of morphs: figures, and a report with pictures."""
