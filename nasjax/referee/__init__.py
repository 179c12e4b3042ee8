"""A comparison of searchers: the same problems, cost and seeds for all, seeds that nobody chose, tests opened once."""
