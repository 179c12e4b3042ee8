"""Proposals from outside: a line in, a line out, and what is said of those that break it."""

import json
import shlex
import sys

import numpy as np
import pytest

from nasjax.referee.draws import relabelled
from nasjax.referee.external import Files, InProcess, Program, Proposer
from nasjax.spaces.tabular_cell.space import TabularCell

SPACE = TabularCell(edges=2, ops=("a", "b", "c"))
HEARD = """
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    print(line.strip(), file=sys.stderr, flush=True)
    if "ask" in message:
        print(json.dumps({"archs": [[0, 2]] * message["ask"]}), flush=True)
    if "end" in message:
        break
"""


def program(source, answer_s=20.0):
    return Program(f"{sys.executable} -S -c {shlex.quote(source)}", answer_s)


def test_a_program_is_asked_and_told_in_lines():
    line = program(HEARD)
    with Proposer(line, SPACE, 7, 10) as proposer:
        archs = proposer.ask(2)
        proposer.tell(archs, np.array([0.5, np.nan]), np.array([1.0, 0.0]))
        proposer.ask(1)  # so that it has read what it was told
        line._errors.seek(0)
        heard = line._errors.read().splitlines()
    assert archs.tolist() == [[0, 2], [0, 2]] and line._process.returncode is not None
    assert '"seed": 7' in heard[0] and '"choices": ["a", "b", "c"]' in heard[0]
    assert heard[2] == (
        '{"tell": [{"arch": [0, 2], "reward": 0.5, "cost": 1.0}, {"arch": [0, 2], "reward": null, "cost": 0.0}]}'
    )


def with_line(line):
    with Proposer(line, SPACE, 0, 9, None, "mine") as proposer:
        proposer.ask(2)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import time; time.sleep(60)", "gave no answer within 0.3 s"),
        ("raise SystemExit('no table here')", "ended (exit code 1): no table here"),
        ("print('hello', flush=True); input(); input()", "answered with no JSON: hello"),
        ("print('[1, 2]', flush=True); input(); input()", 'must be {"archs": [..]} with 2 lists of 2 whole numbers'),
    ],
)
def test_a_program_that_keeps_not_to_it_is_ended_with_a_line(source, said):
    line = program(source, 0.3 if "sleep" in source else 20.0)
    with pytest.raises(ValueError, match="--external mine: ") as error:
        with_line(line)
    assert said in str(error.value) and "\n" not in str(error.value)
    assert line._process.poll() is not None


def test_a_person_is_asked_and_answers_by_files(tmp_path):
    (tmp_path / "answers.jsonl").write_text('{"archs": [[2, 2]]}\n')  # of an earlier search
    with Proposer(Files(tmp_path, 0.3), SPACE, 7, 10) as proposer:
        with (tmp_path / "answers.jsonl").open("a") as file:
            file.write('{"archs": [[0, 1]]}\n{"archs": [[1')
        archs = proposer.ask(1)
        proposer.tell(archs, np.array([0.5]), np.array([1.0]))
        assert archs.tolist() == [[0, 1]]
        with pytest.raises(ValueError, match=r"answers.jsonl has no further line after 0.3 s"):
            proposer.ask(1)
    heard = [json.loads(line) for line in (tmp_path / "told.jsonl").read_text().splitlines()]
    assert [next(iter(line)) for line in heard] == ["start", "ask", "tell", "ask", "end"]


@pytest.mark.parametrize(
    ("archs", "said"),
    [
        ([[0, 1], [0, 3]], "site 1 has choices 0..2, not 3"),
        ([[0, 1]], "with 2 lists"),
        ([[0, 1], [0, True]], "whole numbers"),
        ([[0, 1], [0, -1]], "is no architecture: edge1 has no operation number -1"),  # no site of it is ever left out
        ("a", "with 2 lists"),
    ],
)
def test_an_answer_that_is_no_architecture_is_refused(archs, said):
    proposer = Proposer(InProcess(lambda message: {"archs": archs}), SPACE, 0, 9)
    with pytest.raises(ValueError, match="--external external: ") as error:
        proposer.ask(2)
    assert said in str(error.value)


def test_a_program_that_does_not_start_is_refused():
    with pytest.raises(ValueError, match="'/no/such/program' does not start: No such file"):
        Program("/no/such/program")


def test_relabelled_choices_have_no_names_and_come_back_as_they_were_asked():
    heard = []
    orders = relabelled(3, SPACE.sites)
    assert [order.tolist() for order in orders] != [[0, 1, 2]] * 2
    proposer = Proposer(InProcess(lambda m: heard.append(m) or {"archs": [[0, 1]]}), SPACE, 0, 9, orders)
    archs = proposer.ask(1)
    proposer.tell(archs, np.array([0.5]), np.array([1.0]))
    assert archs.tolist() == [[orders[0][0], orders[1][1]]]
    assert heard[0]["start"]["sites"][0] == {"name": "site0", "choices": [0, 1, 2]}
    assert heard[2]["tell"][0]["arch"] == [0, 1]
