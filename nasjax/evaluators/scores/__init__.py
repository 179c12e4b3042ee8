"""Scores without training, of one batch and any network; NASWOT is in `evaluators.zero_cost`."""
