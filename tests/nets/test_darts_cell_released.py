"""A released DARTS checkpoint as our variables: logits beside a NumPy pass written from the release's definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools.numpy_layers import convolved, pooled, relu

import nasjax
from nasjax.nets.darts_cell import released as module
from nasjax.nets.darts_cell.network import darts_eval
from nasjax.nets.darts_cell.released import darts_from_release
from nasjax.spaces.darts_cell.plan import DartsPlan
from nasjax.spaces.darts_cell.space import Genotype

# Every operator; in the reduction cell with stride 2, and with stride 1 behind its own nodes.
CELLS = Genotype(
    normal=(
        ("sep_conv_3x3", 1), ("skip_connect", 0), ("dil_conv_5x5", 2), ("sep_conv_5x5", 0),
        ("avg_pool_3x3", 3), ("dil_conv_3x3", 1), ("max_pool_3x3", 0), ("skip_connect", 4),
    ),
    reduce=(
        ("skip_connect", 1), ("sep_conv_5x5", 0), ("max_pool_3x3", 1), ("dil_conv_3x3", 2),
        ("avg_pool_3x3", 0), ("skip_connect", 2), ("dil_conv_5x5", 1), ("sep_conv_3x3", 0),
    ),
)  # fmt: skip
# A normal cell, a reduction, and a reduction behind it, whose first input is factorised.
PLAN = DartsPlan(CELLS, channels=4, layers=3, classes=5, image=(12, 8, 3))
HEADED = DartsPlan(CELLS, channels=2, layers=3, classes=5, image=(32, 32, 3), auxiliary=True)
QUICK = {"xla_backend_optimization_level": 0}
RNG = np.random.default_rng(0)


class Release:
    """The release's modules in NumPy, [B, C, H, W]. Arrays are made as the modules ask for them."""

    def __init__(self, train=False):
        self.arrays, self.train = {}, train

    def array(self, name, shape, low=-0.6, high=0.6):
        return self.arrays.setdefault(name, RNG.uniform(low, high, shape))

    def conv(self, name, x, c_out, size, stride=1, padding=0, dilation=1, depthwise=False):
        weight = self.array(f"{name}.weight", (c_out, 1 if depthwise else x.shape[1], size, size))
        return convolved(x, weight, stride, padding, dilation)

    def norm(self, name, x):
        c = x.shape[1]
        gamma, beta = self.array(f"{name}.weight", c, 0.5, 1.5), self.array(f"{name}.bias", c)
        mean, var = self.array(f"{name}.running_mean", c), self.array(f"{name}.running_var", c, 1e-5, 0.5)
        if self.train:
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3))
        gamma, beta, mean, var = (v[:, None, None] for v in (gamma, beta, mean, var))
        return (x - mean) / np.sqrt(var + 1e-5) * gamma + beta

    def relu_conv_norm(self, name, x, c):
        return self.norm(f"{name}.op.2", self.conv(f"{name}.op.1", relu(x), c, 1))

    def factorized(self, name, x, c):
        x = relu(x)
        even = self.conv(f"{name}.conv_1", x, c // 2, 1, 2)
        odd = self.conv(f"{name}.conv_2", x[:, :, 1:, 1:], c // 2, 1, 2)
        return self.norm(f"{name}.bn", np.concatenate([even, odd], 1))

    def depthwise(self, name, at, x, size, stride, dilation):
        c, padding = x.shape[1], dilation * (size - 1) // 2
        x = self.conv(f"{name}.op.{at}", relu(x), c, size, stride, padding, dilation, depthwise=True)
        return self.norm(f"{name}.op.{at + 2}", self.conv(f"{name}.op.{at + 1}", x, c, 1))

    def operator(self, name, kind, x, stride):
        size = int(kind[-1]) if kind[-1].isdigit() else 0
        match kind.split("_")[0]:
            case "skip":
                return x if stride == 1 else self.factorized(name, x, x.shape[1])
            case "dil":
                return self.depthwise(name, 1, x, size, stride, 2)
            case "sep":
                return self.depthwise(name, 5, self.depthwise(name, 1, x, size, stride, 1), size, 1, 1)
            case pooling:
                return pooled(x, stride, pooling)

    def cell(self, k, s0, s1, c, reduces, follows):
        name = f"cells.{k}"
        first = self.factorized if follows else self.relu_conv_norm
        states = [first(f"{name}.preprocess0", s0, c), self.relu_conv_norm(f"{name}.preprocess1", s1, c)]
        pairs = CELLS.reduce if reduces else CELLS.normal
        for node in range(4):
            total = 0
            for i in (2 * node, 2 * node + 1):
                kind, source = pairs[i]
                stride = 2 if reduces and source < 2 else 1
                total = total + self.operator(f"{name}._ops.{i}", kind, states[source], stride)
            states.append(total)
        return np.concatenate(states[2:], 1)

    def linear(self, name, x, width):
        weight, bias = self.array(f"{name}.weight", (width, x.shape[1])), self.array(f"{name}.bias", width)
        return x @ weight.T + bias

    def network(self, plan, x):
        """Logits; and the auxiliary head's, on the cell at two thirds, where the plan has one."""
        x = x.transpose(0, 3, 1, 2)
        s0 = s1 = self.norm("stem.1", self.conv("stem.0", x, 3 * plan.channels, 3, padding=1))
        c, follows, second = plan.channels, False, None
        for k in range(plan.layers):
            reduces = k in (plan.layers // 3, 2 * plan.layers // 3)
            c *= 1 + reduces
            s0, s1, follows = s1, self.cell(k, s0, s1, c, reduces, follows), reduces
            if plan.auxiliary and k == 2 * plan.layers // 3:
                second = self.auxiliary(plan, s1)
        return self.linear("classifier", s1.mean((2, 3)), plan.classes), second

    def auxiliary(self, plan, x):
        name, x = "auxiliary_head", relu(x)  # windows of 5, 3 apart, of maps of 8x8
        x = np.stack([np.stack([x[:, :, i : i + 5, j : j + 5].mean((2, 3)) for j in (0, 3)], -1) for i in (0, 3)], -2)
        x = relu(self.norm(f"{name}.features.3", self.conv(f"{name}.features.2", x, 128, 1)))
        x = relu(self.norm(f"{name}.features.6", self.conv(f"{name}.features.5", x, 768, 2)))
        return self.linear(f"{name}.classifier", x[:, :, 0, 0], plan.classes)


def released(plan, train=False):
    """A release's arrays for a plan, images, its logits and those of the auxiliary head."""
    release, x = Release(train), np.random.default_rng(1).normal(size=(3, *plan.image))
    logits, second = release.network(plan, x)
    return release.arrays, x, logits, second


def close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-10 * np.abs(theirs).max())


@pytest.fixture(scope="module")
def small():
    return released(PLAN)


@pytest.mark.slow
def test_logits_equal_those_of_the_release_by_its_definitions(small):
    """In evaluation: running statistics, epsilon 1e-5."""
    arrays, x, logits, _ = small
    with jax.enable_x64(True):
        variables = darts_from_release(PLAN, arrays)
        network = darts_eval(PLAN)
        start = network.init(jax.random.key(0), None, jnp.asarray(x))
        assert jax.tree.map(np.shape, start) == jax.tree.map(np.shape, variables)
        close(jax.jit(lambda v, x: network.apply(v, None, x)[0], compiler_options=QUICK)(variables, x), logits)


@pytest.mark.slow
def test_the_auxiliary_head_and_the_batch_s_statistics():
    arrays, x, logits, second = released(HEADED, train=True)
    with jax.enable_x64(True):
        variables = darts_from_release(HEADED, arrays)
        apply = darts_eval(HEADED).apply
        ours = jax.jit(lambda v, x: apply(v, None, x, train=True)[0], compiler_options=QUICK)(variables, x)
    close(ours[0], logits)
    close(ours[1], second)
    for part, number in (("first", 3), ("", 6)):
        stats = variables["batch_stats"]["auxiliary"]
        stats = (stats[part] if part else stats)["norm"]
        for ours, theirs in (("mean", "running_mean"), ("var", "running_var")):
            np.testing.assert_array_equal(stats[ours], arrays[f"auxiliary_head.features.{number}.{theirs}"])


def test_logits_equal_those_of_pytorchs_layers(small):
    """The same arrays through torch's own convolutions, poolings and batch norms."""
    torch = pytest.importorskip("torch")
    arrays, x, logits, _ = small
    f = torch.nn.functional

    class Torch(Release):
        def conv(self, name, x, c_out, size, stride=1, padding=0, dilation=1, depthwise=False):
            x, weight = torch.tensor(x), torch.tensor(arrays[f"{name}.weight"])
            return f.conv2d(x, weight, None, stride, padding, dilation, x.shape[1] if depthwise else 1).numpy()

        def norm(self, name, x):
            kinds = ("running_mean", "running_var", "weight", "bias")
            return f.batch_norm(torch.tensor(x), *(torch.tensor(arrays[f"{name}.{k}"]) for k in kinds)).numpy()

        def operator(self, name, kind, x, stride):
            if kind == "max_pool_3x3":
                return f.max_pool2d(torch.tensor(x), 3, stride, 1).numpy()
            if kind == "avg_pool_3x3":
                return f.avg_pool2d(torch.tensor(x), 3, stride, 1, count_include_pad=False).numpy()
            return super().operator(name, kind, x, stride)

    release = Torch()
    release.arrays = arrays
    close(release.network(PLAN, x)[0], logits)


def test_files_prefixes_counters_and_half_precision(small, tmp_path):
    arrays = small[0]
    names = {f"module.{name}": array.astype(np.float16) for name, array in arrays.items()}
    np.savez(tmp_path / "weights.npz", **names, **{"module.stem.1.num_batches_tracked": np.int64(7)})
    read = darts_from_release(PLAN, tmp_path / "weights.npz")
    for ours, exact in zip(*map(jax.tree.leaves, (read, darts_from_release(PLAN, arrays))), strict=True):
        assert ours.dtype == jnp.float32
        np.testing.assert_allclose(ours, exact, rtol=1e-3, atol=1e-6)
    with pytest.raises(ValueError, match=r"model.pt is no .npz; write one where PyTorch is"):
        darts_from_release(PLAN, tmp_path / "model.pt")


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("cells.1._ops.0.conv_2.weight", None, r"^array 'cells.1._ops.0.conv_2.weight' is missing$"),
        ("cells.0._ops.1.op.1.weight", np.zeros(3), r"^unknown array 'cells.0._ops.1.op.1.weight': this genotype"),
        ("cells.0._ops.0.op.5.weight", np.zeros((4, 4, 3, 3)), r"'cells.0._ops.0.op.5.weight' must be \[4, 1, 3, 3\]"),
        ("classifier.bias", np.arange(5), "'classifier.bias' must hold floats, got int64"),
        ("auxiliary_head.classifier.bias", np.zeros(5), r"unknown array .* write DartsPlan\(auxiliary=True\)"),
    ],
)
def test_the_first_wrong_name_or_shape_is_told(small, name, array, message):
    arrays = {key: value for key, value in small[0].items() if key != name}
    with pytest.raises(ValueError, match=message):
        darts_from_release(PLAN, arrays if array is None else {**arrays, name: array})


def test_a_network_without_its_auxiliary_head_says_how_to_go_on(small):
    plan = DartsPlan(CELLS, channels=4, layers=3, classes=5, image=(32, 32, 3), auxiliary=True)
    with pytest.raises(
        ValueError, match=r"'auxiliary_head.features.2.weight' is missing; write DartsPlan\(auxiliary=F"
    ):
        darts_from_release(plan, small[0])


@pytest.mark.slow
def test_the_published_network_of_imagenet_has_a_stem_of_three_and_no_last_norm():
    plan = DartsPlan(CELLS, channels=4, layers=2, classes=5, stem="imagenet", image=(224, 224, 3), auxiliary=True)
    leaves = list(module._leaves(plan))
    names = {name for leaf in leaves for name in leaf.names}
    assert {"stem0.0.weight", "stem0.1.bias", "stem0.3.weight", "stem0.4.running_var", "stem1.1.weight"} <= names
    assert "stem1.2.weight" in names and "auxiliary_head.features.6.weight" not in names
    network = darts_eval(plan)
    start = network.init(jax.random.key(0), None, jax.ShapeDtypeStruct((1, *plan.image), jnp.float32))
    arrays = {name: np.zeros(leaf.shape, np.float32) for leaf in leaves for name in leaf.names}
    assert jax.tree.map(np.shape, start) == jax.tree.map(np.shape, darts_from_release(plan, arrays))


@pytest.mark.slow
def test_weights_from_elsewhere_are_loaded_and_exported_like_retrained_ones(tmp_path):
    pairs = tuple(("sep_conv_3x3", source) for source in (0, 1) * 4)
    plan = DartsPlan(Genotype(pairs, pairs), channels=2, layers=1, classes=5, image=(4, 6, 3))
    arch = {"space": "darts_cell", "normal": [list(p) for p in pairs], "reduce": [list(p) for p in pairs]}
    x = np.random.default_rng(2).integers(0, 256, (2, *plan.image)).astype(np.uint8)
    network = darts_eval(plan)
    variables = network.init(jax.random.key(0), None, jnp.asarray(x, jnp.float32))
    settings = {"form": {"channels": 2, "layers": 1, "auxiliary": False}, "shape": plan.image}
    facts = {"names": tuple("abcde"), "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}
    nasjax.adopt(tmp_path, variables, arch, **settings, **facts)
    model = nasjax.load(tmp_path)
    whitened = (x / 255 - np.array(facts["mean"])) / np.array(facts["std"])
    forward = jax.jit(lambda v, x: network.apply(v, None, x)[0], compiler_options=QUICK)
    expected = forward(variables, jnp.asarray(whitened, jnp.float32))
    ours = jax.jit(model.apply, compiler_options=QUICK)(model.variables, x)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(expected).max() > 1e-3
    assert model.names == tuple("abcde") and model.arch == arch
    assert {path.name for path in nasjax.export(tmp_path)} == {"weights.npz", "arch.json", "model.jax", "model.json"}
    with pytest.raises(ValueError, match=r"^\S+ is \[4\], the architecture with this form needs \[12\]$"):
        nasjax.adopt(tmp_path, variables, arch, **{**settings, "form": {**settings["form"], "channels": 6}}, **facts)
    del variables["params"]["head"]
    with pytest.raises(ValueError, match=r"^params/head/bias is missing, the architecture with this form needs \[5\]$"):
        nasjax.adopt(tmp_path, variables, arch, **settings, **facts)
