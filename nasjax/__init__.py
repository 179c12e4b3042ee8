"""nasjax: neural architecture search in JAX, where a new candidate is data, not a program.

The public names below are imported when they are first used, so that `import nasjax` costs nothing.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_WHERE = {
    "nasjax.types": (
        "Budget",
        "Builder",
        "Built",
        "Evaluation",
        "Evaluator",
        "Experiment",
        "Failure",
        "Learner",
        "Metric",
        "Network",
        "Outcome",
        "Proposal",
        "Runtime",
        "Searcher",
        "Signature",
        "Site",
        "Space",
        "Status",
        "Task",
        "Watch",
    ),
    "nasjax.spaces.conv_chain.space": ("ConvChain",),
    "nasjax.spaces.conv_chain.plan": ("count_macs", "count_params", "plan"),
    "nasjax.plugins.register": ("register",),
    "nasjax.spaces.site_space": ("SiteSpace",),
    "nasjax.spaces.tabular_cell.space": ("TabularCell",),
    "nasjax.spaces.from_table.space": ("table_space",),
    "nasjax.spaces.darts_cell.space": ("DartsCell", "genotype"),
    "nasjax.spaces.darts_cell.plan": ("DartsPlan", "SearchPlan"),
    "nasjax.spaces.choice_chain.space": ("ChoiceChain",),
    "nasjax.spaces.choice_chain.plan": ("ChoicePlan",),
    "nasjax.catalog": ("named",),
    "nasjax.searchers.additive": ("best_path",),
    "nasjax.searchers.aging": ("aging",),
    "nasjax.searchers.independent_policy": ("independent_policy",),
    "nasjax.searchers.lstm_policy": ("lstm_policy",),
    "nasjax.searchers.nsga2": ("nsga2",),
    "nasjax.searchers.asha": ("asha",),
    "nasjax.searchers.bo": ("bo",),
    "nasjax.searchers.local_search": ("local_search",),
    "nasjax.searchers.topk": ("topk_evolution",),
    "nasjax.searchers.random": ("random_search",),
    "nasjax.searchers.reinforce": ("reinforce",),
    "nasjax.searchers.policy": ("Policy",),
    "nasjax.nets.choice_chain.supernet": ("choice_supernet",),
    "nasjax.nets.darts_cell.network": ("darts_eval",),
    "nasjax.nets.darts_cell.released": ("darts_from_release",),
    "nasjax.nets.darts_cell.mixed": ("darts_search",),
    "nasjax.learners.one_shot": ("one_shot",),
    "nasjax.evaluators.child": ("child",),
    "nasjax.evaluators.table": ("load_columns", "load_table", "table"),
    "nasjax.evaluators.scores.named": ("untrained_scores",),
    "nasjax.evaluators.scores.gradient": ("grad_norm", "snip", "zico"),
    "nasjax.evaluators.scores.jacobian": ("jacob_cov",),
    "nasjax.evaluators.scores.synaptic_flow": ("logsynflow", "synflow"),
    "nasjax.evaluators.scores.ranks": ("rank_sum",),
    "nasjax.drive.scan": ("incumbent", "scan"),
    "nasjax.train.recipe": ("Recipe", "Recipes"),
    "nasjax.data.dataset": ("DataConfig", "Dataset"),
    "nasjax.data.adapters": ("from_huggingface", "from_torchvision"),
    "nasjax.commands": (
        *("config_of", "configure", "search", "retrain", "fit", "predict", "show", "tabulate", "tracker"),
        *("export", "export_points", "export_supernet"),
    ),
    "nasjax.commands.comparing": ("compare",),
    "nasjax.model": ("adopt", "load"),
}
_MODULE = {name: module for module, names in _WHERE.items() for name in names}

__all__ = sorted([*_MODULE, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module 'nasjax' has no attribute {name!r}")
    return getattr(import_module(_MODULE[name]), name)


def __dir__() -> list[str]:
    return __all__
