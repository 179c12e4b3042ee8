"""The nouns of the library: what a search, a network, an evaluator and a runtime look like.

Everything here is a plain record or a protocol; no algorithm lives in this room.
"""

from nasjax.types.arrays import Array, Key, PyTree
from nasjax.types.learning import Learner, Metric, Stages, Task
from nasjax.types.networks import (
    Builder,
    Built,
    Inherit,
    Masked,
    MaskedCost,
    Network,
    Part,
    Signature,
    carries_state,
    no_carry,
)
from nasjax.types.running import Experiment, Failure, Outcome, Runtime, Watch, afterwards, html_table, one_line
from nasjax.types.searching import (
    Budget,
    Evaluation,
    Evaluator,
    Proposal,
    Searcher,
    Site,
    Space,
    Status,
    arch_size,
    canonical,
    crossover,
    digest,
)

__all__ = [
    "Array",
    "Budget",
    "Builder",
    "Built",
    "Evaluation",
    "Evaluator",
    "Experiment",
    "Failure",
    "Inherit",
    "Key",
    "Learner",
    "Masked",
    "MaskedCost",
    "Metric",
    "Network",
    "Outcome",
    "Part",
    "Proposal",
    "PyTree",
    "Runtime",
    "Searcher",
    "Signature",
    "Site",
    "Space",
    "Stages",
    "Status",
    "Task",
    "Watch",
    "afterwards",
    "arch_size",
    "canonical",
    "carries_state",
    "crossover",
    "digest",
    "html_table",
    "no_carry",
    "one_line",
]
