"""What the command line does, as functions for notebooks and other programs. They print nothing."""

from nasjax.commands.comparing import Compared, compare
from nasjax.commands.configuration import config_of, configure, default_workdir, published, with_table
from nasjax.commands.exporting import exported
from nasjax.commands.fitting import Fitted, fit
from nasjax.commands.inspection import asked_arch, inspect
from nasjax.commands.latencies import measure_latency, time_one
from nasjax.commands.points import Point, export_points
from nasjax.commands.retraining import Retrained, retrain
from nasjax.commands.searching import report, search
from nasjax.commands.showing import show
from nasjax.commands.tabling import tabulate
from nasjax.commands.trackers import tracker
from nasjax.commands.using import export, export_supernet, predict
from nasjax.commands.watching import watch

__all__ = [
    "Compared",
    "Fitted",
    "Point",
    "Retrained",
    "asked_arch",
    "compare",
    "config_of",
    "configure",
    "default_workdir",
    "export",
    "export_points",
    "export_supernet",
    "exported",
    "fit",
    "inspect",
    "measure_latency",
    "predict",
    "published",
    "report",
    "retrain",
    "search",
    "show",
    "tabulate",
    "time_one",
    "tracker",
    "watch",
    "with_table",
]
