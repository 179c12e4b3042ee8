"""What the command line does, as functions for notebooks and other programs. They print nothing."""

from nasjax.commands.configuration import config_of, configure, default_workdir, published, with_table
from nasjax.commands.fitting import Fitted, fit
from nasjax.commands.inspection import inspect
from nasjax.commands.retraining import Retrained, retrain
from nasjax.commands.searching import report, search
from nasjax.commands.using import export, predict

__all__ = [
    "Fitted",
    "Retrained",
    "config_of",
    "configure",
    "default_workdir",
    "export",
    "fit",
    "inspect",
    "predict",
    "published",
    "report",
    "retrain",
    "search",
    "with_table",
]
