"""Draws, courses and figures on numbers that can be checked by hand."""

import numpy as np
import pytest

from nasjax.referee import children, draws, figures, record
from nasjax.referee.course import Course, at, incumbents, reached, taken
from nasjax.referee.figures import Judged
from nasjax.spaces.tabular_cell.space import TabularCell

NAN, INF = np.nan, np.inf
COURSE = Course(
    np.array([[0, 1, 2, 3], [3, 2, 1, 0]]),
    np.array([[NAN, 0.5, 0.4, 0.9], [0.7, 0.8, 0.8, 0.1]]),
    np.array([[1.0, 2.0, 4.0, INF], [1.0, 2.0, 3.0, 4.0]]),
)


def test_seeds_follow_from_the_number_and_no_two_purposes_share_them():
    first = draws.seeds(1, "digits", 3, "search")
    assert first == draws.seeds(1, "digits", 5, "search")[:3] and len(set(first)) == 3
    others = [draws.seeds(2, "digits", 3, "search"), draws.seeds(1, "other", 3, "search")]
    others.append(draws.seeds(1, "digits", 3, "noise"))
    assert all(not set(first) & set(other) for other in others)
    assert draws.secret() != draws.secret()


def test_a_relabelling_is_uniform_so_that_a_replayed_architecture_is_a_random_one():
    sites = TabularCell(edges=1, ops=("a", "b", "c")).sites
    drawn = np.bincount([draws.relabelled(seed, sites)[0][0] for seed in range(600)])
    assert len(drawn) == 3 and (abs(drawn - 200) < 4 * np.sqrt(600 * 2 / 9)).all()


def test_the_best_so_far_leaves_out_failures_and_what_exceeds_the_budget():
    assert incumbents(COURSE).tolist() == [[-1, 1, 1, 1], [0, 1, 1, 1]]
    assert at(COURSE, np.array([1.0, 3.5])).tolist() == [[-1, 1], [0, 1]]
    assert reached(COURSE, np.array([0.5, 0.75])).tolist() == [2.0, 2.0]
    assert reached(COURSE, np.array([0.9, 0.9])).tolist() == [INF, INF]
    np.testing.assert_array_equal(taken(COURSE.reward, np.array([[-1], [1]])), [[NAN], [0.8]])


def test_a_pause_between_trials_hides_none_of_them():
    course = Course(np.arange(4)[None], np.array([[0.1, NAN, 0.5, 0.2]]), np.array([[1.0, INF, 2.0, INF]]))
    assert at(course, np.array([0.5, 1.0, 2.0, 9.0])).tolist() == [[-1, 0, 2, 2]]


def test_the_longest_trained_count_before_the_best():
    rungs = COURSE._replace(fidelity=np.array([[1, 1, 3, 3], [1, 3, 1, 3]]))
    assert incumbents(rungs).tolist() == [[-1, 1, 2, 2], [0, 1, 1, 1]]


def test_differences_are_paired_by_seed():
    seeds = np.random.default_rng(0).normal(size=40)  # of much larger spread than the difference
    rows = {"random": seeds, "better": seeds + 0.1, "noise": seeds[::-1]}
    course = COURSE._replace(spent=np.ones((40, 1)))
    found = figures.table({name: Judged(course, final) for name, final in rows.items()}, figures.resamples(0, 40))
    over = found["better"]["over_random"]
    assert over["mean"] == pytest.approx(0.1) and np.allclose(over["interval"], 0.1) and over["better"] == 40
    low, high = found["noise"]["over_random"]["interval"]
    assert low < 0 < high
    assert found["random"]["mean"] == pytest.approx(seeds.mean()) and "over_random" not in found["random"]
    assert sum(row["rank"] for row in found.values()) == pytest.approx(6.0)  # 1 + 2 + 3
    low, high = found["random"]["interval"]
    assert (high - low) / 2 == pytest.approx(1.96 * seeds.std() / 40**0.5, rel=0.05)


def test_equal_finals_share_a_rank_and_nothing_found_is_last():
    found = figures.ranks({"a": np.array([1.0, 2.0]), "b": np.array([1.0, 3.0]), "c": np.array([NAN, 1.0])})
    assert {name: ranks.tolist() for name, ranks in found.items()} == {"a": [1.5, 2], "b": [1.5, 1], "c": [3, 3]}
    rows = {"random": Judged(COURSE, np.array([1.0, NAN]))}
    assert figures.table(rows, figures.resamples(0, 2))["random"]["failed"] == 1


def test_seeds_that_never_reach_a_target_count_as_beyond_the_budget():
    assert figures.to_target(COURSE, np.array([0.5, 0.9])) == {"reached": 1, "median": None, "in_95_percent": None}
    assert figures.to_target(COURSE, np.array([0.5, 0.7]))["in_95_percent"] == 2.0


def test_the_ceiling_is_what_the_best_reward_is_worth():
    runs = np.array([[0.9, 0.7], [0.8, 0.82], [0.1, 0.1]], np.float32)
    found = figures.ceiling(runs, np.array([0.5, 0.6, 0.7]))
    assert found["best"] == 0.7 and found["by_reward"] == pytest.approx(0.55)  # the best by run 0, and by run 1
    assert found["told"] == pytest.approx(0.86) and found["again"] == pytest.approx(0.75)
    assert found["deviation"] == pytest.approx(np.sqrt((0.02 + 0.0002) / 2), rel=1e-3)
    runs[[0, 1, 2], [0, 1, 0]] = NAN  # none has both
    assert figures.ceiling(runs, np.array([0.5, 0.6, 0.7])) == {"best": 0.7}


def test_a_digest_forgets_the_last_digits_and_the_order_of_names():
    told = {"a": 1 / 3, "b": [np.float32(0.1), INF, None]}
    assert record.digest(told) == record.digest({"b": [0.1, NAN, None], "a": 0.3333333})
    assert record.digest(told) != record.digest({**told, "a": 0.33334})


def test_a_training_costs_the_epochs_that_it_adds_and_a_refused_one_nothing():
    rows = [{"id": n, "macs": 10, "parent": -1, "status": "ok", "fidelity": 1} for n in range(3)]
    rows[1]["status"], rows[2] = "rejected", rows[2] | {"parent": 0, "fidelity": 4}
    assert children.trained(rows, samples=5, whole=9) == [50, 0, 150]
    plain = [{"id": 0, "macs": 10, "parent": -1, "status": "failed"}, {"id": 1, "macs": None, "status": "failed"}]
    assert children.trained(plain, samples=5, whole=9) == [450, 0]
