"""A user's own spaces, data sets, tasks and searchers."""
