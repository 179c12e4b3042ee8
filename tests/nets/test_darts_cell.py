"""The evaluation network of the DARTS family against a plain PyTorch formulation, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax.nets.darts_cell import network as module
from nasjax.nets.darts_cell.network import darts_eval
from nasjax.spaces.darts_cell.plan import DartsPlan
from nasjax.spaces.darts_cell.space import Genotype

QUICK = {"xla_backend_optimization_level": 0}
# Every operator, in the reduction cell with stride 2 wherever its source can have one.
CELLS = Genotype(
    normal=(
        ("max_pool_3x3", 0), ("avg_pool_3x3", 1), ("sep_conv_3x3", 2), ("sep_conv_5x5", 0),
        ("dil_conv_3x3", 1), ("dil_conv_5x5", 3), ("skip_connect", 4), ("sep_conv_3x3", 1),
    ),
    reduce=(
        ("skip_connect", 0), ("sep_conv_3x3", 1), ("sep_conv_5x5", 1), ("max_pool_3x3", 0),
        ("dil_conv_3x3", 0), ("avg_pool_3x3", 1), ("dil_conv_5x5", 1), ("skip_connect", 4),
    ),
)  # fmt: skip
SMALL = DartsPlan(CELLS, channels=2, layers=3, classes=3, image=(12, 8, 2))
WITH_AUXILIARY = DartsPlan(CELLS, channels=2, layers=3, classes=3, image=(32, 32, 2), auxiliary=True)
IMAGENET = DartsPlan(CELLS, channels=2, layers=3, classes=3, stem="imagenet", image=(224, 224, 2), auxiliary=True)
DROP = 0.3


class Torch:
    """The same network in PyTorch; `variables` are ours, `keep` the factors of drop path."""

    def __init__(self, torch, plan, variables, train, keep=None):
        self.plan, self.train, self.keep, self.torch, self.f = plan, train, keep, torch, torch.nn.functional
        self.variables = jax.tree.map(lambda leaf: torch.tensor(np.asarray(leaf)), variables)

    def at(self, kind, *path):
        tree = self.variables[kind]
        for name in path:
            tree = tree[name]
        return tree

    def norm(self, x, *path):
        params, stats = self.at("params", *path), self.at("batch_stats", *path)
        return self.f.batch_norm(
            x, stats["mean"].clone(), stats["var"].clone(), params["gamma"], params["beta"], self.train, 0.1, 1e-5
        )

    def conv(self, x, *path, stride=1, padding=0):
        kernel = self.at("params", *path)["kernel"].permute(3, 2, 0, 1)
        return self.norm(self.f.conv2d(x, kernel, None, stride, padding), *path, "norm")

    def factorized_reduce(self, x, *path):
        kernel = self.at("params", *path)["kernel"].permute(3, 2, 0, 1)
        first, second = kernel.chunk(2)
        x = self.f.relu(x)
        halves = [self.f.conv2d(x, first, stride=2), self.f.conv2d(x[:, :, 1:, 1:], second, stride=2)]
        return self.norm(self.torch.cat(halves, 1), *path, "norm")

    def depthwise(self, x, *path, stride, dilation=1):
        kernel = self.at("params", *path)["kernel"].permute(2, 0, 1)[:, None]
        padding = dilation * (kernel.shape[-1] - 1) // 2
        x = self.f.conv2d(self.f.relu(x), kernel, None, stride, padding, dilation, groups=len(kernel))
        return self.conv(x, *path, "pointwise")

    def operator(self, name, x, stride, *path):
        if name == "max_pool_3x3":
            return self.f.max_pool2d(x, 3, stride, 1)
        if name == "avg_pool_3x3":
            return self.f.avg_pool2d(x, 3, stride, 1, count_include_pad=False)
        if name == "skip_connect":
            return x if stride == 1 else self.factorized_reduce(x, *path, "reduce")
        if name.startswith("dil"):
            return self.depthwise(x, *path, "dilated", stride=stride, dilation=2)
        return self.depthwise(self.depthwise(x, *path, "first", stride=stride), *path, "second", stride=1)

    def cell(self, k, reduces, followed, s0, s1):
        name, relu = f"cell{k}", self.f.relu
        s0 = self.factorized_reduce(s0, name, "input0") if followed else self.conv(relu(s0), name, "input0")
        states = [s0, self.conv(relu(s1), name, "input1")]
        pairs = self.plan.genotype.reduce if reduces else self.plan.genotype.normal
        terms = []
        for i, (operator, source) in enumerate(pairs):
            stride = 2 if reduces and source < 2 else 1
            y = self.operator(operator, states[source], stride, name, f"pair{i}")
            if self.keep is not None and not (operator == "skip_connect" and stride == 1):
                y = y * self.torch.tensor(np.asarray(self.keep[k, i]))[:, None, None, None]
            terms.append(y)
            if i % 2:
                states.append(terms[i - 1] + terms[i])
        return self.torch.cat(states[2:], 1)

    def dense(self, x, *path):
        params = self.at("params", *path)
        return x @ params["kernel"] + params["bias"]

    def auxiliary(self, x):
        imagenet = self.plan.stem == "imagenet"
        x = self.f.avg_pool2d(self.f.relu(x), 5, 2 if imagenet else 3, 0, count_include_pad=False)
        x = self.f.relu(self.conv(x, "auxiliary", "first"))
        x = self.f.conv2d(x, self.at("params", "auxiliary")["kernel"].permute(3, 2, 0, 1))
        x = x if imagenet else self.norm(x, "auxiliary", "norm")
        return self.dense(self.f.relu(x).flatten(1), "auxiliary", "head")

    def __call__(self, x):
        x = self.torch.tensor(np.asarray(x)).permute(0, 3, 1, 2)
        imagenet, layers = self.plan.stem == "imagenet", self.plan.layers
        if imagenet:
            s0 = self.f.relu(self.conv(x, "stem0", stride=2, padding=1))
            s0 = self.conv(s0, "stem1", stride=2, padding=1)
            s1 = self.conv(self.f.relu(s0), "stem2", stride=2, padding=1)
        else:
            s0 = s1 = self.conv(x, "stem", padding=1)
        followed, outputs = imagenet, []
        for k in range(layers):
            reduces = k in (layers // 3, 2 * layers // 3)
            s0, s1 = s1, self.cell(k, reduces, followed, s0, s1)
            followed = reduces
            if k == 2 * layers // 3 and self.plan.auxiliary and self.train:
                outputs.append(self.auxiliary(s1))
        return [self.dense(s1.mean((2, 3)), "head"), *outputs]


def disturbed(variables):
    """Biases, scales and statistics that matter."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: leaf * rng.uniform(0.7, 1.4, leaf.shape) + rng.uniform(0, 0.1), variables)


@pytest.mark.parametrize(("plan", "train"), [(SMALL, False), (WITH_AUXILIARY, True), (IMAGENET, True)])
def test_forward_pass_equals_pytorch(plan, train):
    torch = pytest.importorskip("torch")
    with jax.enable_x64(True):
        network, batch = darts_eval(plan), 3
        x = jax.random.normal(jax.random.key(1), (batch, *plan.image), jnp.float64)
        variables = disturbed(network.init(jax.random.key(0), None, x))
        keep, options = None, {}
        if train:
            options = {"key": jax.random.key(2), "train": True, "drop_rate": DROP}
            keep = module._keep(jax.random.fold_in(options["key"], 0), DROP, batch, plan.layers)  # of part 0
        ours = jax.jit(lambda v, x: network.apply(v, None, x, **options)[0], compiler_options=QUICK)(variables, x)
        theirs = Torch(torch, plan, variables, train, keep)(x)
        ours = ours if isinstance(ours, tuple) else (ours,)
        assert len(ours) == len(theirs) == 1 + (plan.auxiliary and train)
        for a, b in zip(ours, theirs, strict=True):
            assert a.dtype == jnp.float64
            np.testing.assert_allclose(a, b.numpy(), rtol=1e-8, atol=1e-10)


@pytest.mark.slow
def test_drop_path_drops_per_sample_and_keeps_the_mean():
    keep = np.asarray(module._keep(jax.random.key(0), 0.25, 500, 4))
    assert keep.shape == (4, 8, 500)
    np.testing.assert_allclose(np.unique(keep), [0, 1 / 0.75], rtol=1e-6)
    assert abs((keep == 0).mean() - 0.25) < 0.02
    assert np.abs(keep.mean(-1) - 1).max() < 0.12  # every operator on its own
    assert len(np.unique(keep.reshape(32, -1), axis=1).T) > 490  # and every sample
    np.testing.assert_array_equal(module._keep(jax.random.key(0), 0.25, 9, 4), keep[:, :, :9])


ODD = DartsPlan(CELLS, channels=2, layers=3, classes=3, image=(9, 7, 1))  # 9x7 -> 5x4 -> 3x2


class Odd:
    """A network of odd sizes, its variables, images, and its logits in training without drop path."""

    def __init__(self):
        self.network = darts_eval(ODD)
        self.x = jax.random.normal(jax.random.key(1), (4, *ODD.image))
        self.variables = self.network.init(jax.random.key(0), None, self.x)
        self.logits, self.grads = self.gradient(None, 0.0)

    def gradient(self, key, rate):
        """Training logits, and the gradient of a loss of them."""

        def loss(params):
            variables = {**self.variables, "params": params}
            logits, _ = self.network.apply(variables, None, self.x, key=key, train=True, drop_rate=rate)
            return jax.nn.logsumexp(logits, -1).sum(), logits

        grads, logits = jax.jit(jax.grad(loss, has_aux=True), compiler_options=QUICK)(self.variables["params"])
        return logits, grads


@pytest.fixture(scope="module")
def odd():
    return Odd()


@pytest.mark.slow
def test_initial_values(odd):
    params = odd.variables["params"]
    kernel = params["cell2"]["input0"]["kernel"]
    bound = kernel.shape[2] ** -0.5
    assert 0.8 * bound < np.abs(kernel).max() <= bound
    depthwise = params["cell0"]["pair2"]["first"]["kernel"]
    assert depthwise.shape == (3, 3, 2) and 0.7 / 3 < np.abs(depthwise).max() <= 1 / 3
    assert not np.asarray(params["head"]["bias"]).any()
    traced = jax.jit(odd.network.init, compiler_options=QUICK)(jax.random.key(0), None, odd.x)
    for a, b in zip(jax.tree.leaves(traced), jax.tree.leaves(odd.variables), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.slow
def test_gradients_reach_every_weight(odd):
    assert odd.logits.shape == (4, 3) and np.isfinite(odd.logits).all()
    for path, grad in jax.tree.leaves_with_path(odd.grads):
        assert np.isfinite(grad).all() and np.any(grad), jax.tree_util.keystr(path)


@pytest.mark.slow
def test_training_moves_every_running_statistic(odd):
    after = odd.network.apply(odd.variables, None, odd.x, train=True)[1]
    assert jax.tree.structure(after) == jax.tree.structure(odd.variables)
    pairs = zip(
        jax.tree.leaves_with_path(after["batch_stats"]), jax.tree.leaves(odd.variables["batch_stats"]), strict=True
    )
    for (path, new), old in pairs:
        assert not np.array_equal(new, old), jax.tree_util.keystr(path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["normal", "reduce"])
def test_noise_passes_nothing_of_the_image(kind):
    """One cell, or two with a reduction; a single operator that is no noise is enough to read the image."""
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 8, 8, 1)), jnp.float32)
    told = []
    for first in ("noise", "sep_conv_3x3"):
        pairs = ((first, 0), ("noise", 1)) + (("noise", 0), ("noise", 1)) * 3
        plan = DartsPlan(Genotype(pairs, pairs), channels=2, layers=1 if kind == "reduce" else 2, image=(8, 8, 1))
        network = darts_eval(plan)
        variables = network.init(jax.random.key(0), None, x[0])

        @jax.jit
        def train(x, key, network=network, variables=variables):
            return network.apply(variables, None, x, key=key, train=True)[0]

        key = jax.random.key(1)
        told.append(np.allclose(train(x[0], key), train(x[1], key), atol=1e-6))
        assert not np.allclose(train(x[0], key), train(x[0], jax.random.key(2)), atol=1e-4)
        assert np.array_equal(network.apply(variables, None, x[0])[0], network.apply(variables, None, x[0])[0])
    assert told == [True, False]


def test_equal_operators_are_one_part():
    parts = darts_eval(DartsPlan(CELLS, channels=4, layers=20, image=(32, 32, 3))).parts
    assert len(parts) > 200 and len({part.apply for part in parts}) < 40


@pytest.mark.slow
def test_a_traced_drop_rate(odd):
    def forward(key, rate):
        return odd.network.apply(odd.variables, None, odd.x, key=key, train=True, drop_rate=rate)[0]

    forward = jax.jit(forward, compiler_options=QUICK)
    dropped, again, other = (forward(jax.random.key(seed), 0.5) for seed in (0, 0, 1))
    np.testing.assert_array_equal(dropped, again)
    assert not np.allclose(dropped, other) and not np.allclose(dropped, odd.logits)
    np.testing.assert_allclose(forward(jax.random.key(0), 0.0), odd.logits, rtol=1e-4, atol=1e-5)
    assert forward._cache_size() == 1


@pytest.mark.slow
def test_bfloat16_is_near_float32_and_its_logits_and_statistics_are_float32(odd):
    network = darts_eval(ODD, dtype="bfloat16")
    forward = jax.jit(lambda v, x: network.apply(v, None, x, train=True), compiler_options=QUICK)
    logits, after = forward(odd.variables, odd.x)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((logits, after)))
    assert not np.array_equal(logits, odd.logits)
    np.testing.assert_allclose(logits, odd.logits, atol=0.15 * np.abs(odd.logits).max())


@pytest.mark.slow
def test_wrong_use_says_what_to_write(odd):
    with pytest.raises(ValueError, match="give key, or drop_rate=0"):
        odd.network.apply(odd.variables, None, odd.x, train=True, drop_rate=0.1)
    with pytest.raises(ValueError, match=r"set DartsPlan\(image="):
        odd.network.apply(odd.variables, None, odd.x[:, 1:])
    with pytest.raises(ValueError, match="choose float32"):
        darts_eval(ODD, dtype="float16")
