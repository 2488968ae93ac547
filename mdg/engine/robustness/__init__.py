"""How much of a score remains when cameras, weather and rigs fail: what ``tools/robustness.py`` calls."""
