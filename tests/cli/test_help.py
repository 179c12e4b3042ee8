"""What `--help`, `--version`, `--list_settings` and a wrong flag print."""

import re

import pytest
from tools.commands import accepted, here, idle
from tools.settings_known import configs

from nasjax import __version__, flagged, launch
from nasjax.cli.help import EXAMPLES, GROUPS, text
from nasjax.commands import settings_help
from nasjax.settings import override
from nasjax.store import started


def test_every_flag_stands_in_one_group_and_no_other_does():
    flags = [name for group in GROUPS.values() for name in group]
    assert sorted(flags) == sorted(name for name in launch.define() if name != "h")


def test_the_help_has_every_flag_once_and_none_of_absl():
    out = accepted(["--help"])
    heads = [re.split(r"[= ]", line.strip())[0] for line in out.splitlines() if line.startswith("  --")]
    assert sorted(heads) == sorted({f"--{name}" for group in GROUPS.values() for name in group})
    assert "flagfile" not in out and "absl" not in out and "repeat this option" not in out


@pytest.mark.parametrize("width", [40, 80, 110])
def test_the_help_keeps_to_the_width(width):
    helps = {name: launch.define()[name].help for name in launch.define()}
    lines = text(helps, "what", width).splitlines()
    commands = [line for line in lines if started.own() in line]  # to be copied as they are
    assert all(len(line) <= max(width, 50) for line in lines if line not in commands)


def test_every_mode_has_an_example_that_is_taken(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    idle(monkeypatch)
    accepted(["--method=random", "--workdir=DIR"])
    (tmp_path / "DIR" / "best.json").write_text('{"space": "conv_chain", "layers": []}')
    monkeypatch.setattr("nasjax.commands.inspect", lambda config, arch, batch: {})
    assert tuple(EXAMPLES) == launch.MODES
    for example in EXAMPLES.values():
        accepted(example.flags.split())


def test_the_version_is_printed():
    assert accepted(["--version"]) == f"nasjax {__version__}\n"


def test_every_setting_has_a_meaning_and_takes_its_own_default():
    taken = set()
    for config in configs():
        for setting in settings_help.settings_of(config):
            assert setting.meaning and "\n" not in setting.meaning, f"{config.method}: {setting.name}"
            given = f"{setting.name}={settings_help.shown(setting.value)}"
            own = (type(config), type(getattr(config, setting.name.split(".")[0])), given)
            table = setting.name.startswith("table.") or not config.space.sites  # a table makes the sites
            if setting.name not in flagged.OWN and not table and own not in taken:
                override(config, given)
                taken.add(own)


def test_settings_are_listed_with_their_values_and_flags():
    lines = accepted(["--list-settings", "darts"]).splitlines()  # a dash is as good as an underscore
    found = {line.split("=")[0]: line for line in lines}
    assert "[first | second | exact]" in found["search.order"] and "=first " in found["search.order"]
    assert "(--dataset)" in found["data.name"] and "(--seed)" in found["seed"]
    assert "[whole number or none]" in found["data.valid_size"]
    assert found["search.sgd.clip"].endswith("largest norm of the whole gradient; 0 = not clipped.")
    paper = accepted(["--list_settings=darts", "--preset=paper", "--space=tabular_cell"])
    assert "search.epochs=50 " in paper and "search.channels" not in paper


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--epochs=3"], "write --set recipe.epochs=3 or --set retrain_recipe.epochs=3"),
        (["--method=darts", "--epochs=3"], "write --set search.epochs=3 or --set retrain_recipe.epochs=3"),
        (["--method=darts", "--learning_rte=3"], "or --set retrain_recipe.learning_rate=3"),
        (["--wokdir=x"], "did you mean --workdir?"),
        (["--zzzz=x"], "--help has the flags"),
        (["--method=random", "--dataset=minst"], "FILE.npz with x [N, H, W] or [N, H, W, C] and y [N]"),
        (["--method=random", "--seed=0-4"], "--seed needs a whole number, got '0-4'; several seeds are --seeds=0,1"),
        (["--macs=many"], "error: --macs needs a number, got 'many'"),
        (["--watch=7"], "error: --watch takes no value, got '7'"),
    ],
)
def test_a_wrong_flag_is_told_what_to_write(flags, message):
    code, _, err = here(*flags)
    assert code == 2 and message in err and len(err.splitlines()) == 1


@pytest.mark.parametrize("several", ["0..4", "0,1,2"])
def test_several_seeds_may_be_given_as_seed(several):
    given = launch.define()
    launch._parsed(given, ["nasjax", f"--seed={several}"])
    assert given.seeds == several and given.seed is None


def test_the_bare_command_says_where_the_help_is(monkeypatch, capsys):
    def refused(*given):
        raise ValueError("--method is missing")

    monkeypatch.setattr(launch, "_run", refused)
    assert launch.main(["nasjax"]) == 2
    assert capsys.readouterr().err == "error: --method is missing; --help shows all flags and modes\n"
