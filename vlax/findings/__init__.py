"""Experiments over one chain: arms, seeds, a sweep of rates, paired tests, and a page that says what came of it."""
