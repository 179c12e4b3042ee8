"""One file per method: which space, searcher or learner and evaluator meet, and the presets of the command."""
