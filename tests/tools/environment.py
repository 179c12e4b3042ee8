"""A fresh environment with nasjax in it, as `pip install` leaves one, made without a network."""

import os
import site
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]

# What pip writes for an entry of [project.scripts] where the path may have spaces: a shell's program and Python's.
SCRIPT = """#!/bin/sh
'''exec' "{python}" "$0" "$@"
' '''
import sys
from {module} import {name}
if __name__ == "__main__":
    sys.exit({name}())
"""


def fresh(folder):
    """Makes a virtual environment: this checkout, then what is installed here; its commands are those of pyproject."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (packages,) = (folder / "lib").glob("python*/site-packages")
    (packages / "nasjax.pth").write_text("\n".join([str(ROOT), *site.getsitepackages()]) + "\n")
    for command, entry in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"].items():
        module, _, name = entry.partition(":")
        file = folder / "bin" / command
        file.write_text(SCRIPT.format(python=folder / "bin" / "python", module=module, name=name))
        file.chmod(0o755)


def shell(line, folder, home):
    """Runs a line in a shell that knows nothing of this process's environment; its standard output."""
    env = {"PATH": os.defpath, "HOME": str(home), "JAX_PLATFORMS": "cpu"}
    ran = subprocess.run(["sh", "-ec", line], cwd=folder, env=env, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, f"{line}\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout
