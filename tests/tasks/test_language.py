"""Task language: perplexity against one pass over the streams, state from window to window, and texts continued."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools import toy_tasks

from nasjax import catalog, commands
from nasjax.data.dataset import Dataset
from nasjax.data.sources import Split
from nasjax.drive import retrain as retraining
from nasjax.drive.retrain import Job, RetrainConfig, retrain
from nasjax.evaluators.child import child
from nasjax.model import Model
from nasjax.problem.problem import Problem
from nasjax.settings import override
from nasjax.store.checkpoint import RunError
from nasjax.tasks.language import TASK, continuation, predict, sample
from nasjax.train import step
from nasjax.train.fit import fit, resident
from nasjax.train.recipe import Recipe
from nasjax.train.step import trainer
from nasjax.types import Proposal, Status, Watch, no_carry

WINDOW = 4
RECIPE = Recipe(epochs=3, batch_size=3, optimizer="adam", learning_rate=0.03, weight_decay=0.0)
NAMES = ("the", "cell", "divides", "<unk>", "<eos>")


def text(n, seed):
    """A walk 0, 1, 2, ... in a ring of words, by two steps after every 4: the last word but one matters."""
    rng, tokens = np.random.default_rng(seed), [0, 1]
    while len(tokens) < n:
        jump = 2 if tokens[-2] == 4 else 1
        tokens.append(int(rng.integers(5)) if rng.random() < 0.1 else (tokens[-1] + jump) % 5)
    return np.array(tokens, np.int32)


def windows(tokens):
    count = (len(tokens) - 1) // WINDOW
    cut = tokens[: count * WINDOW + 1]
    return Split(cut[:-1].reshape(count, WINDOW), cut[1:].reshape(count, WINDOW))


@pytest.fixture(scope="module")
def dataset():
    none = np.zeros(0, np.float32)
    return Dataset("ring", 5, NAMES, windows(text(101, 0)), windows(text(45, 1)), none, none, "0" * 64)


def streams(split, count):
    """The text of every stream: (x, y) of `count` equal parts of the whole; the last may be shorter."""
    length = -(-len(split.y) // count)
    return [(split.x[i : i + length].ravel(), split.y[i : i + length].ravel()) for i in range(0, len(split.y), length)]


def one_pass(params, x, y):
    """Nats of every token of one long sequence, and the last state; float64."""
    embed, recur, out = (np.asarray(params[name], float) for name in ("embed", "recur", "out"))
    h, nats = np.zeros(len(recur)), []
    for token, target in zip(x, y, strict=True):
        h = np.tanh(embed[token] + h @ recur)
        logits = h @ out
        nats.append(np.log(np.exp(logits).sum()) - logits[target])
    return np.array(nats), h


@pytest.mark.slow
def test_loss_score_and_finish():
    rng = np.random.default_rng(0)
    logits, y = rng.normal(size=(3, 4, 5)).astype(np.float32), rng.integers(0, 5, (3, 4))
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    nats = -np.log(np.take_along_axis(p, y[..., None], -1))[..., 0]
    np.testing.assert_allclose(TASK.loss(jnp.asarray(logits), jnp.asarray(y), RECIPE), nats.mean(), rtol=1e-5)
    value, weight = TASK.score(jnp.asarray(logits), jnp.asarray(y))
    np.testing.assert_allclose(value, nats.sum(1), rtol=1e-5)
    assert weight.tolist() == [4, 4, 4]
    np.testing.assert_allclose(TASK.finish(value.sum(), weight.sum()), np.exp(nats.mean()), rtol=1e-5)
    uniform, _ = TASK.score(jnp.zeros((1, 7, 10_000)), jnp.zeros((1, 7), jnp.int32))
    np.testing.assert_allclose(TASK.finish(uniform.sum(), 7), 10_000, rtol=1e-4)
    broken = logits.copy()
    broken[1, 0, 0] = np.inf
    assert np.isfinite(TASK.score(jnp.asarray(broken), jnp.asarray(y))[0]).tolist() == [True, False, True]
    assert TASK.metric.text(-115.9) == "115.9000" and TASK.metric.value(115.9) == -115.9
    assert catalog.task("language") is TASK and TASK.contiguous
    with pytest.raises(ValueError, match="set both to 0 for language"):
        TASK.loss(jnp.asarray(logits), jnp.asarray(y), dataclasses.replace(RECIPE, label_smoothing=0.1))


@pytest.mark.slow
@pytest.mark.parametrize(("count", "batch_size"), [(1, 1), (1, 4), (1, 512), (4, 4), (4, 7), (512, 1)])
def test_the_perplexity_is_that_of_one_pass_over_the_streams(dataset, count, batch_size):
    """11 validation windows: one stream, streams of 3, 3, 3, 2, one window each; the training's batch is no matter."""
    data, network = resident(dataset), toy_tasks.recurrent()
    variables = network.init(jax.random.key(0), None, None)
    recipe = dataclasses.replace(RECIPE, batch_size=batch_size, eval_streams=count)
    train = trainer(network, recipe, len(dataset.train.y), variables, TASK)
    measure = (variables, None, data.valid_x, data.valid_y, data.mean, data.std)
    found = jax.jit(train.measure)(*measure)
    parts = [one_pass(variables["params"], x, y)[0] for x, y in streams(dataset.valid, min(count, 11))]
    nats = np.concatenate(parts)
    assert len(nats) == 44
    np.testing.assert_allclose(found, np.exp(nats.mean()), rtol=1e-5)


@pytest.mark.slow
def test_a_network_without_state_is_measured_in_pieces_of_no_matter(dataset, monkeypatch):
    data, network = resident(dataset), toy_tasks.table()
    variables = network.init(jax.random.key(0), None, None)
    found = []
    for tokens, batch_size in ((2**11, 3), (2**11, 5), (3 * WINDOW, 3)):  # one piece, one piece, four
        monkeypatch.setattr(step, "_EVAL_TOKENS", tokens)
        train = trainer(network, dataclasses.replace(RECIPE, batch_size=batch_size), 25, variables, TASK)
        found.append(train.measure(variables, None, data.valid_x, data.valid_y, data.mean, data.std))
    np.testing.assert_allclose(found, found[0], rtol=1e-6)
    with pytest.raises(ValueError, match="eval_streams has no effect: the network carries no state"):
        trainer(network, dataclasses.replace(RECIPE, eval_streams=2), 25, variables, TASK)


def test_streams_are_for_texts():
    for name in ("recipe", "retrain_recipe"):
        Problem(override(commands.configure("reinforce_rnn"), f"{name}.eval_streams=2"))
        with pytest.raises(
            ValueError, match=f"{name}.eval_streams has no effect on --dataset=digits, which is no text"
        ):
            Problem(override(commands.configure("random"), f"{name}.eval_streams=2"))


@pytest.mark.slow
def test_state_travels_between_windows_and_starts_anew_with_every_epoch(dataset):
    """With a rate of 0 the weights stay, so the loss of an epoch is that of one pass over each stream."""
    data, network = resident(dataset), toy_tasks.recurrent()
    variables = network.init(jax.random.key(1), None, None)
    train = trainer(network, RECIPE, 25, variables, TASK)
    assert train.epoch_steps == 8  # three streams of 8 windows; the 25th is left out
    order = np.asarray(train.shuffle(jax.random.key(0), jnp.int32(0)))
    assert order[:6].tolist() == [0, 8, 16, 1, 9, 17] and order[-1] == 24
    run = jax.jit(train.run)
    state = run(jax.random.key(0), train.start(variables), None, jnp.float32(0), data, 0, 16)
    whole = [one_pass(variables["params"], *stream) for stream in streams(Split(*(a[:24] for a in dataset.train)), 3)]
    expected = np.mean([nats for nats, _ in whole])
    np.testing.assert_allclose(state.train_loss[:2], [expected, expected], rtol=1e-5)
    np.testing.assert_allclose(state.carry, np.stack([h for _, h in whole]), rtol=1e-4, atol=1e-6)
    resets = np.mean([one_pass(variables["params"], x, y)[0] for x, y in zip(*dataset.train, strict=True)])
    assert abs(resets - expected) > 1e-3  # a state that is lost would be seen
    # Cut in the middle of an epoch, the training goes on the same.
    first = run(jax.random.key(0), train.start(variables), None, jnp.float32(0.1), data, 0, 5)
    parts = run(jax.random.key(0), first, None, jnp.float32(0.1), data, 5, 16)
    once = run(jax.random.key(0), train.start(variables), None, jnp.float32(0.1), data, 0, 16)
    jax.tree.map(np.testing.assert_array_equal, parts, once)


@pytest.mark.slow
def test_the_gradient_stops_at_the_window(dataset):
    network = toy_tasks.recurrent()
    variables = network.init(jax.random.key(2), None, None)
    plain = Recipe(epochs=1, batch_size=3, momentum=0.0, nesterov=False, weight_decay=0.0)
    train = trainer(network, plain, 25, variables, TASK)
    carry = jax.random.normal(jax.random.key(3), (3, toy_tasks.HIDDEN))
    x, y = jnp.asarray(dataset.train.x[:3]), jnp.asarray(dataset.train.y[:3])
    state = train.start(variables)._replace(carry=carry)
    after = jax.jit(train.update)(state, None, jnp.float32(0.5), x, y, jax.random.key(0), jnp.int32(1))

    def loss(params):
        (logits, _), _ = network.apply({"params": params}, None, (x, carry))
        return TASK.loss(logits, y, plain)

    gradient = jax.tree.leaves(jax.jit(jax.grad(loss))(variables["params"]))
    expected = np.concatenate([np.ravel(g) for g in gradient])
    np.testing.assert_allclose(state.params - after.params, 0.5 * expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_training_lowers_the_perplexity_and_state_helps(dataset):
    data, histories = resident(dataset), {}
    recipe = dataclasses.replace(RECIPE, epochs=12)
    for network in (toy_tasks.table(), toy_tasks.recurrent()):
        variables, history = fit(jax.random.key(0), network, data, recipe, TASK)
        histories[network.init] = history["valid_perplexity"]
        assert history["valid_perplexity"][-1] < history["valid_perplexity"][0] < 8
    table, recurrent = histories.values()
    assert recurrent[-1] < 0.95 * table[-1] < 3.5
    nats = np.concatenate([one_pass(variables["params"], x, y)[0] for x, y in streams(dataset.valid, 1)])
    np.testing.assert_allclose(recurrent[-1], np.exp(nats.mean()), rtol=1e-4)


@pytest.mark.slow
def test_a_population_trains_as_each_child_alone(dataset):
    network = toy_tasks.recurrent()
    builts = [toy_tasks.built(toy_tasks.chosen(network, [i]), str(i)) for i in range(2)]
    proposal = Proposal(jnp.arange(2), jnp.arange(2)[:, None], jnp.full(2, -1))
    found = []
    for masked in (None, toy_tasks.masked(network)):
        evaluator = child(lambda arch: builts[int(arch[0])], dataset, TASK, recipe=RECIPE, masked=masked)
        evaluation, _ = evaluator.evaluate(jax.random.key(0), proposal)
        assert (evaluation.status == Status.OK).all(), evaluation.info["error"]
        found.append(evaluation)
    np.testing.assert_allclose(found[0].fitness, found[1].fitness, rtol=1e-4)
    # Fitness is the perplexity's negative, and the best of the last epochs is the smallest.
    np.testing.assert_allclose(found[0].fitness, -found[0].info["valid_curve"].min(1), rtol=1e-6)
    assert (found[0].fitness < -1).all() and found[0].fitness[0] != found[0].fitness[1]


@pytest.mark.slow
def test_a_child_that_diverges_fails_alone(dataset):
    """A perplexity beyond float32 is a failure, not a number."""
    network = toy_tasks.table()

    def apply(variables, choice, x, **options):
        logits, after = network.apply(variables, choice, x, **options)
        return logits * jnp.where(choice[0] == 1, 1e3, 1.0) * (1 - 2 * jax.nn.one_hot((x + 1) % 5, 5)), after

    evaluator = child(
        lambda arch: toy_tasks.built(network), dataset, TASK, recipe=RECIPE, masked=toy_tasks.masked(network._replace(
            init=lambda key, choice, x: {"params": {"table": jnp.ones((5, 5))}}, apply=apply))
    )  # fmt: skip
    proposal = Proposal(jnp.arange(2), jnp.arange(2)[:, None], jnp.full(2, -1))
    evaluation, _ = evaluator.evaluate(jax.random.key(0), proposal)
    assert evaluation.status.tolist() == [Status.OK, Status.FAILED]
    assert np.isfinite(evaluation.fitness).tolist() == [True, False]
    assert "NaN in epoch 1" in evaluation.info["error"][1]


def job(dataset, builts, **settings):
    return Job(
        builts=builts,
        data=dataset,
        final=dataset,
        test=lambda: windows(text(61, 2)),
        task=TASK,
        recipe=RECIPE,
        settings=RetrainConfig(**settings),
        seed=0,
        facts={},
    )


@pytest.mark.slow
def test_retraining_tests_the_smallest_perplexity(dataset, tmp_path):
    said = []
    builts = [toy_tasks.built(toy_tasks.table(), "table"), toy_tasks.built(toy_tasks.recurrent(), "recurrent")]
    slow = builts[0]._replace(plan=("slow",), arch={"name": "slow"}, learning_rate=1e-6)
    _, result, winner = retrain(job(dataset, [slow, *builts]), tmp_path, Watch(say=said.append))
    found = {row["arch"]["name"]: row["valid_perplexity"] for row in result["candidates"]}
    assert winner.built.arch["name"] == min(found, key=found.get) != "slow"
    assert result["valid_perplexity"] == min(found.values()) < found["slow"]
    parts = streams(windows(text(61, 2)), 1)
    if winner.built.arch["name"] == "recurrent":
        nats = np.concatenate([one_pass(winner.variables["params"], x, y)[0] for x, y in parts])
    else:
        logits = np.asarray(winner.variables["params"]["table"], float)
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        nats = np.concatenate([-np.log(p[x, y]) for x, y in parts])
    assert result["test_perplexity"] == pytest.approx(np.exp(nats.mean()), rel=1e-4) and result["test_samples"] == 15
    assert result["metric"] == {"name": "perplexity", "unit": "plain", "sign": -1}
    assert any(f"validation perplexity {min(found.values()):.4f}" in line for line in said)


@pytest.mark.slow
def test_the_grid_takes_the_smallest_perplexity_and_skips_what_failed(dataset, tmp_path):
    grid = {
        "grid": True,
        "grid_epochs": 1,
        "grid_weight_decays": (0.0,),
        "grid_bn_eps": (1e-5,),
        "grid_decays": (0.5,),
    }
    rates, said = (0.05, 1e38, 1e-6), []
    built = toy_tasks.built(toy_tasks.table())
    _, result, _ = retrain(job(dataset, [built], grid_learning_rates=rates, **grid), tmp_path, Watch(say=said.append))
    rows = [json.loads(line) for line in next(tmp_path.rglob("grid.jsonl")).read_text().splitlines()]
    values = {row["setting"]["learning_rate"]: row["valid_perplexity"] for row in rows}
    assert values[1e38] is None and 1 < values[0.05] < values[1e-6]
    assert result["recipe"]["learning_rate"] == 0.05
    assert any("validation perplexity none" in line for line in said)
    with pytest.raises(RunError, match="every setting of the grid gave NaN"):
        retrain(job(dataset, [built], grid_learning_rates=(1e38,), **grid), tmp_path / "all", Watch())
    assert retraining.finished(job(dataset, [built]), tmp_path) is None


def model(network, names=NAMES):
    """A model whose network says word i + 1 after word i."""
    logits = 9.0 * np.roll(np.eye(len(names), dtype=np.float32), 1, 1)
    return Model(lambda variables, x: jnp.asarray(logits)[x], {}, (WINDOW,), "int32", names, {}, "language", no_carry)


@pytest.mark.slow
def test_a_text_is_continued():
    found = continuation(model(None), "The mouse cell", tokens=7, temperature=0)
    assert found == ("divides <unk>\nthe cell divides <unk>", 3, 1)
    sampled = [continuation(model(None), "the cell", tokens=30, seed=seed, temperature=5.0).text for seed in (0, 0, 1)]
    assert sampled[0] == sampled[1] != sampled[2]
    assert continuation(model(None), "the cell\n", tokens=1, temperature=0).text == "the"  # after <eos>
    assert continuation(model(None), "the\r\n\n  cell\n", tokens=1, temperature=0).tokens == 5  # as a training's text
    assert continuation(model(None), "the cell \n ", tokens=1, temperature=0).tokens == 3  # the last line goes on
    letters = model(None, tuple("abc \n"))
    assert continuation(letters, "cab", tokens=4, temperature=0).text == "c \na"
    assert continuation(letters, "a  b\n\nc ", tokens=1, temperature=0) == ("\n", 8, 0)
    assert continuation(model(None, ("a", "b", "<eos>")), "b a", tokens=3, temperature=0) == ("b\na", 2, 0)  # words
    assert sample(letters).startswith("a") and sample(letters).count("\n") > 10 and sample(model(None)) != ""
    with pytest.raises(ValueError, match=r"2 of 3 tokens .* has no <unk>: 'x', 'B'") as error:
        continuation(model(None, ("a", "bb")), "x a B")
    assert "\n" not in str(error.value)
    for empty in ("", "  "):
        with pytest.raises(ValueError, match="the text is empty"):
            continuation(model(None), empty)
    with pytest.raises(ValueError, match="tokens must be at least 1"):
        continuation(model(None), "the", tokens=0)
    broken = model(None)._replace(apply=lambda variables, x: jnp.full((1, WINDOW, 5), jnp.nan))
    with pytest.raises(ValueError, match="logits are not finite"):
        continuation(broken, "the")


def test_a_recurrent_network_continues_from_the_whole_text():
    network = toy_tasks.recurrent()
    variables = network.init(jax.random.key(5), None, None)
    carrying = Model(
        lambda variables, x: network.apply(variables, None, x)[0],
        variables,
        (WINDOW,),
        "int32",
        NAMES,
        {},
        "language",
        network.carry,
    )
    given = "the cell divides the the cell divides cell the"
    tokens = [NAMES.index(word) for word in given.split()]
    for _ in range(6):
        _, h = one_pass(variables["params"], tokens, tokens)
        tokens.append(int((h @ np.asarray(variables["params"]["out"], float)).argmax()))
    expected = " ".join(NAMES[token] for token in tokens[-6:]).replace(" <eos> ", "\n").replace(" <eos>", "\n")
    assert continuation(carrying, given, tokens=6, temperature=0).text == expected.replace("<eos> ", "\n")


def test_predict_writes_the_text_and_what_follows(tmp_path):
    file = tmp_path / "in.txt"
    file.write_text("the mouse cell")
    (out,) = predict(model(None), file, tmp_path)
    lines = out.read_text().splitlines()
    assert out.name == "continuation.txt" and lines[0] == "[1 of 3 tokens are not in the vocabulary: <unk>]"
    assert lines[1].startswith("the mouse cell divides")
    file.write_text("the cell")
    assert predict(model(None), file, tmp_path)[0].read_text().startswith("the cell divides")
    file.write_bytes(b"\xef\xbb\xbfthe cell")
    assert predict(model(None), file, tmp_path)[0].read_text().startswith("the cell divides")
    for text, message in (("the\rcell", "line 1 has a carriage return"), ("cell\n<eos>", "line 2 has the word <eos>")):
        file.write_bytes(text.encode())
        with pytest.raises(ValueError, match=f"--input={file}: {message}"):
            predict(model(None), file, tmp_path)
    file.write_bytes(b"\xff\xfe\x00")
    for source, message in (
        (tmp_path / "none.txt", "no such file; give a text file"),
        (tmp_path, "no such file; give a text file"),
        (file, "is not UTF-8"),
    ):
        with pytest.raises(ValueError, match=f"--input={source}.*{message}") as error:
            predict(model(None), source, tmp_path)
        assert "\n" not in str(error.value)
    file.write_text("")
    with pytest.raises(ValueError, match=f"--input={file} is empty"):
        predict(model(None), file, tmp_path)
