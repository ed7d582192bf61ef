"""Runs models. Knows nothing of peers, money, storage or screens."""
