"""Which settings there are: the fields of every method's presets over every space that it takes."""

import dataclasses
import functools

from nasjax import catalog, commands
from nasjax.settings import override


@functools.cache
def configs():
    found = []
    for method in catalog.METHODS:
        for preset in ("demo", "paper"):
            for space in (None, *catalog.SPACES):
                try:
                    found.append(commands.configure(method, preset, None, space))
                except ValueError:
                    continue  # a method does not take every space
    assert {config.method for config in found} == set(catalog.METHODS)
    return found


@functools.cache
def prefixes():
    """Every dotted name of a setting, and of a group of settings."""
    names = set()

    def walk(value, where):
        for field in dataclasses.fields(value):
            names.add(where + field.name)
            if dataclasses.is_dataclass(inner := getattr(value, field.name)):
                walk(inner, f"{where}{field.name}.")

    for config in configs():
        walk(config, "")
        if config.table is not None and config.space.name == "tabular_cell":
            walk(commands.with_table(config, "x.npz"), "")
    return names


@functools.cache
def settable(name, value="", *beside):
    """Whether some method has the setting and takes the value, with others "name=value" beside it.

    Without a value: whether there is the setting.
    """
    if not value:
        return name in prefixes()
    for config in configs():
        try:
            override(config, f"{name}={value}", *beside)
            return True
        except ValueError:
            continue
    return False
