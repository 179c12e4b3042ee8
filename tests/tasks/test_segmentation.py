"""Task segmentation: its loss and metric by hand, masks that move with their images, training, and masks as files."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tools import toy_tasks

from nasjax import catalog
from nasjax.data.dataset import DataConfig
from nasjax.evaluators.child import child
from nasjax.model import Model
from nasjax.problem.data import load
from nasjax.problem.given import augmentation
from nasjax.tasks.segmentation import TASK, mask_names, overlap, predict, prediction, segmentation
from nasjax.train import augment as augmenting
from nasjax.train import step
from nasjax.train.augment import Augment
from nasjax.train.fit import fit, resident
from nasjax.train.recipe import Recipe
from nasjax.types import Proposal, Status, no_carry

PLAIN = Recipe()
RECIPE = Recipe(
    epochs=6,
    batch_size=16,
    optimizer="adam",
    learning_rate=0.03,
    weight_decay=0.0,
    augment=augmentation(catalog.source("nuclei")),
)


@pytest.fixture(scope="module")
def dataset():
    return load(DataConfig("nuclei", train_limit=48, valid_limit=20, resize=16))


def numpy_loss(logits, t):
    p = 1 / (1 + np.exp(-logits.astype(float)))
    cross_entropy = -(t * np.log(p) + (1 - t) * np.log(1 - p)).mean()
    axes = (1, 2, 3)
    dice = 1 - ((2 * (p * t).sum(axes) + 1e-5) / (p.sum(axes) + t.sum(axes) + 1e-5)).mean()
    return cross_entropy, dice


def test_the_golden_loss():
    logits, target = np.array([2.0, -1, 0, 1]).reshape(1, 2, 2, 1), np.array([1, 0, 1, 0], np.uint8).reshape(1, 2, 2, 1)
    np.testing.assert_allclose(numpy_loss(logits, target), [0.611650, 0.369613], atol=1e-6)
    np.testing.assert_allclose(TASK.loss(jnp.asarray(logits), jnp.asarray(target), PLAIN), 0.675438, atol=1e-6)


def test_the_loss_of_a_batch_and_of_several_heads():
    rng = np.random.default_rng(0)
    heads = [rng.normal(0, 3, (5, 4, 6, 1)).astype(np.float32) for _ in range(3)]
    target = rng.integers(0, 2, (5, 4, 6, 1)).astype(np.uint8)
    expected = [0.5 * bce + dice for bce, dice in (numpy_loss(head, target) for head in heads)]
    np.testing.assert_allclose(TASK.loss(jnp.asarray(heads[0]), target, PLAIN), expected[0], rtol=1e-5)
    np.testing.assert_allclose(TASK.loss(tuple(map(jnp.asarray, heads)), target, PLAIN), np.mean(expected), rtol=1e-5)
    np.testing.assert_allclose(prediction(tuple(map(jnp.asarray, heads))), np.mean(heads, 0), atol=1e-6)
    np.testing.assert_allclose(TASK.loss(jnp.asarray(heads[0]), target.astype(np.float32), PLAIN), expected[0], 1e-5)


def test_the_loss_of_large_logits_is_finite():
    logits, target = jnp.array([3e4, -3e4, 3e4]).reshape(1, 1, 3, 1), jnp.array([1, 1, 0]).reshape(1, 1, 3, 1)
    value, gradient = jax.jit(jax.value_and_grad(lambda z: TASK.loss(z, target, PLAIN)))(logits)
    assert np.isfinite(value) and np.isfinite(gradient).all()
    for change in ({"label_smoothing": 0.1}, {"auxiliary_weight": 0.4}):
        with pytest.raises(ValueError, match="set both to 0 for segmentation"):
            TASK.loss(logits, target, dataclasses.replace(PLAIN, **change))


def pair(intersection, union, size=12):
    """Logits and mask [1, 1, size, 1] with so many pixels in common and in all."""
    predicted = np.arange(size) < union
    true = np.arange(size) < intersection
    return np.where(predicted, 3.0, -2.0).reshape(1, 1, size, 1), true.astype(np.uint8).reshape(1, 1, size, 1)


def metric(task, *pairs):
    logits, masks = (np.concatenate(arrays) for arrays in zip(*pairs, strict=True))
    value, weight = task.score(jnp.asarray(logits), jnp.asarray(masks))
    assert value.shape == weight.shape == (len(pairs),)
    return float(task.finish(value.sum(), weight.sum()))


def test_the_golden_iou():
    each = segmentation(per_image=True)
    two = pair(1, 2), pair(9, 10)
    assert metric(TASK, *two) == pytest.approx(0.833333, abs=1e-6)
    assert metric(each, *two) == pytest.approx(0.7, abs=1e-5)
    for task in (TASK, each):
        assert metric(task, pair(0, 0)) == 1 and metric(task, pair(5, 5)) == 1
        assert metric(task, pair(0, 3)) == pytest.approx(0, abs=1e-5)
    # An empty prediction of an empty mask changes nothing where pixels are pooled, and counts 1 among images.
    assert metric(TASK, *two, pair(0, 0)) == pytest.approx(0.833333, abs=1e-6)
    assert metric(each, *two, pair(0, 0)) == pytest.approx(0.8, abs=1e-5)
    assert (TASK.metric.name, each.metric.name, TASK.metric.sign) == ("iou", "iou_per_image", 1)
    assert segmentation() is TASK is catalog.task("segmentation")


def test_a_logit_that_is_not_finite_makes_its_image_nan():
    logits, masks = (np.concatenate([a, b, b]) for a, b in zip(pair(1, 2), pair(3, 4), strict=True))
    logits[1, 0, 0, 0], logits[2, 0, 1, 0] = np.nan, np.inf
    for task in (TASK, segmentation(per_image=True)):
        value, _ = task.score(jnp.asarray(logits), jnp.asarray(masks))
        assert np.isfinite(value).tolist() == [True, False, False]
    intersection, union = overlap((jnp.asarray(logits[:1]), jnp.asarray(logits[:1])), jnp.asarray(masks[:1]))
    assert (intersection[0], union[0]) == (1, 2)


@pytest.mark.parametrize(
    "cfg",
    [
        Augment("none", rotate=True),
        Augment("pad", 2),
        Augment("pad", 1, rotate=True, colour=0.5),
        Augment("upsample", 10),
    ],
)
def test_a_mask_moves_with_its_image(cfg):
    """The image's channel is the mask itself, so that it tells where every pixel went."""
    rng = np.random.default_rng(1)
    mask = (rng.random((300, 8, 8, 1)) < 0.4).astype(np.uint8)
    plain = dataclasses.replace(cfg, colour=0.0)
    augment = jax.jit(TASK.augment, static_argnums=3)
    x, y = augment(jax.random.key(0), jnp.asarray(mask, jnp.float32), jnp.asarray(mask), plain)
    assert y.dtype == jnp.uint8 and set(np.unique(y)) <= {0, 1}
    np.testing.assert_array_equal(np.asarray(x) > 0.5, y)
    assert (np.asarray(y) != mask).any((1, 2, 3)).mean() > 0.5
    _, same = augment(jax.random.key(0), jnp.asarray(mask, jnp.float32), jnp.asarray(mask), cfg)
    np.testing.assert_array_equal(same, y)  # colours move nothing
    image, _ = augment(jax.random.key(0), jnp.asarray(mask, jnp.float32), jnp.asarray(mask), plain)
    np.testing.assert_array_equal(image, augmenting.augment(jax.random.key(0), jnp.asarray(mask, jnp.float32), plain))


def test_turns_and_flips_are_the_eight_symmetries_of_a_square_and_four_of_a_rectangle():
    for shape, count in (((5, 5), 8), ((4, 6), 4)):
        one = np.arange(np.prod(shape), dtype=np.float32).reshape(1, *shape, 1)
        square = shape[0] == shape[1]
        symmetries = [
            np.rot90(one[..., ::flip, :], k, (1, 2))
            for flip, k in itertools.product((1, -1), range(4 if square else 2))
        ]
        if not square:
            symmetries = [np.rot90(one[:, :, ::flip], k, (1, 2)) for flip, k in itertools.product((1, -1), (0, 2))]
        cfg = Augment("none", rotate=True)
        many = np.asarray(augmenting.augment(jax.random.key(2), jnp.asarray(one.repeat(800, 0)), cfg))
        found = [(many == other).all((1, 2, 3)).sum() for other in symmetries]
        assert sum(found) == 800
        expected = 800 / count
        assert sum((n - expected) ** 2 / expected for n in found) < 3 * count + 6  # chi squared


def test_a_change_of_colour_is_one_of_three():
    x = np.random.default_rng(3).normal(size=(300, 4, 4, 3)).astype(np.float32)
    colour = jax.jit(augmenting.random_colour, static_argnums=2)
    y = np.asarray(colour(jax.random.key(3), jnp.asarray(x), 0.3))
    shift = y - x
    brighter = np.ptp(shift, (1, 2, 3)) < 1e-5
    middle = x.mean((1, 2, 3), keepdims=True)
    ratio = (y - middle) / (x - middle)
    contrast = np.ptp(ratio, (1, 2, 3)) < 1e-2
    gray = np.abs(y.mean(-1) - x.mean(-1)).max((1, 2)) < 1e-5
    assert ((brighter.astype(int) + contrast + gray) == 1).all()
    assert all(70 < kind.sum() < 130 for kind in (brighter, contrast, gray))
    assert 0.25 < np.abs(shift[brighter]).max() <= 0.3 and 1.25 < ratio[contrast].max() <= 1.31
    # The tint: lengths about the gray axis are times 0.7 .. 1.3, and the turn is by at most 54 degrees.
    before, after = (z[gray] - z[gray].mean(-1, keepdims=True) for z in (x, y))
    lengths = np.linalg.norm(after, axis=-1) / np.linalg.norm(before, axis=-1)
    cosine = (before * after).sum(-1) / np.linalg.norm(before, axis=-1) / np.linalg.norm(after, axis=-1)
    assert 0.7 <= lengths.min() < 0.75 and 1.25 < lengths.max() <= 1.31
    assert np.cos(0.3 * np.pi) - 1e-3 <= cosine.min() < np.cos(0.25 * np.pi)
    grays = np.asarray(colour(jax.random.key(3), jnp.asarray(x[..., :1]), 0.3))
    assert (np.abs(grays - x[..., :1]).max((1, 2, 3)) > 0).mean() > 0.95
    with pytest.raises(ValueError, match=r"strength in \[0, 1\]"):
        Augment(colour=2.0)


@pytest.mark.slow
def test_training_raises_the_iou(dataset):
    data, network = resident(dataset), toy_tasks.masks(8, heads=2)
    variables, history = fit(jax.random.key(0), network, data, RECIPE, TASK)
    assert history.keys() == {"train_loss", "valid_iou"}
    assert history["valid_iou"][-1] > max(0.35, history["valid_iou"][0] + 0.05)
    x = TASK.inputs(data.valid_x, data.mean, data.std)
    logits = np.mean(network.apply(variables, None, x)[0], 0)
    p, t = logits > 0, dataset.valid.y > 0
    assert history["valid_iou"][-1] == pytest.approx((p & t).sum() / (p | t).sum(), abs=1e-5)


@pytest.mark.slow
def test_the_metric_is_the_same_in_pieces(dataset, monkeypatch):
    data, network = resident(dataset), toy_tasks.masks()
    variables = network.init(jax.random.key(1), None, data.valid_x[:1])
    found = []
    for pixels in (2**18, 16 * 16 * 3):  # three images at a time, and two left over
        monkeypatch.setattr(step, "_EVAL_PIXELS", pixels)
        measure = step.trainer(network, RECIPE, 48, variables, TASK).measure
        found.append(float(jax.jit(measure)(variables, None, data.valid_x, data.valid_y, data.mean, data.std)))
    assert found[0] == pytest.approx(found[1], rel=1e-6) and found[0] > 0


@pytest.mark.slow
def test_a_population_trains_as_each_child_alone(dataset):
    network = toy_tasks.masks()
    builts = [toy_tasks.built(toy_tasks.chosen(network, [i]), str(i)) for i in range(2)]
    proposal = Proposal(jnp.arange(2), jnp.arange(2)[:, None], jnp.full(2, -1))
    recipe = dataclasses.replace(RECIPE, epochs=2)
    found = []
    for masked in (None, toy_tasks.masked(network)):
        evaluator = child(lambda arch: builts[int(arch[0])], dataset, TASK, recipe=recipe, masked=masked)
        evaluation, _ = evaluator.evaluate(jax.random.key(0), proposal)
        assert (evaluation.status == Status.OK).all(), evaluation.info["error"]
        found.append(evaluation)
    np.testing.assert_allclose(found[0].fitness, found[1].fitness, atol=2e-3)
    np.testing.assert_allclose(found[0].info["train_loss"], found[1].info["train_loss"], atol=1e-3)
    assert len(set(found[0].fitness.tolist())) == 2 and (found[0].fitness > 0).all()


@pytest.fixture
def bright():
    """A model of 8x8 images: foreground is what is brighter than 127."""
    return Model(lambda variables, x: x.mean(-1, keepdims=True) / 10 - 12.75, {}, (8, 8, 3), "uint8", ("nucleus",), {},
                 "segmentation", no_carry)  # fmt: skip


def save(path, pixels):
    Image.fromarray(pixels).save(path)


def test_arrays_give_masks_of_any_number_of_heads(bright):
    """As `Model.predict` returns them; images of another size are refused, as nothing is resized."""
    x = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
    plain = bright._replace(answers=TASK.answers)
    several = plain._replace(apply=lambda variables, x: (bright.apply(variables, x), 2 * bright.apply(variables, x)))
    for model in (plain, several):
        masks = model.predict(x)
        assert masks.dtype == np.uint8
        np.testing.assert_array_equal(masks, x.mean(-1) > 127.5)
    with pytest.raises(ValueError, match="nothing is resized"):
        plain.predict(x[:, :4])


def test_masks_have_the_size_of_their_image(bright, tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir(), out.mkdir()
    small = np.random.default_rng(0).integers(0, 2, (8, 8), np.uint8) * 255
    wide = np.zeros((30, 50, 3), np.uint8)
    wide[:, 25:] = 255
    save(folder / "small.png", small)
    save(folder / "wide.png", wide)
    save(folder / "both.png", wide)
    save(folder / "both.bmp", wide)
    files = predict(bright, folder, out)
    assert [file.name for file in files] == ["both.bmp.png", "both.png.png", "small.png", "wide.png"]
    masks = {file.name: np.asarray(Image.open(file)) for file in files}
    np.testing.assert_array_equal(masks["small.png"], small)
    np.testing.assert_array_equal(masks["wide.png"], wide[..., 0])
    assert masks["wide.png"].dtype == np.uint8
    (one,) = predict(bright, folder / "wide.png", out)
    np.testing.assert_array_equal(np.asarray(Image.open(one)), wide[..., 0])
    np.savez(tmp_path / "x.npz", x=np.stack([small] * 2)[..., None].repeat(3, -1))
    files = predict(bright, tmp_path / "x.npz", out)
    assert [file.name for file in files] == ["0.png", "1.png"]
    np.testing.assert_array_equal(np.asarray(Image.open(files[1])), small)


@pytest.mark.parametrize("aspect", ["pad", "crop", "squash"])
@pytest.mark.parametrize("size", [(16, 40), (40, 16)])
def test_masks_lie_over_images_that_are_not_square_however_they_became_squares(aspect, size, bright, tmp_path):
    """A bright patch of whole pixels in each: 40 pixels are 8 of the network's, or 16 are."""
    image = np.zeros((*size, 3), np.uint8)
    image[:10, :10] = 255
    (tmp_path / "in").mkdir(), (tmp_path / "out").mkdir()
    save(tmp_path / "in/a.png", image)
    (file,) = predict(bright._replace(aspect=aspect), tmp_path / "in", tmp_path / "out")
    mask = np.asarray(Image.open(file))
    assert mask.shape == size
    assert (mask[:9, :9] == 255).all() and not mask[12:].any() and not mask[:, 12:].any()


def test_every_image_has_a_mask_of_its_own():
    for names, masks in (
        (["a.jpg", "a.jpg.png", "a.png"], ["a.jpg.png", "a.jpg.png.png", "a.png.png"]),
        (["A.jpg", "a.png", "b.png"], ["A.jpg.png", "a.png.png", "b.png"]),
        (["A.png", "a.png"], ["A.png.png", "a.png.2.png"]),
    ):
        assert mask_names(names) == masks


def test_a_mask_lies_over_its_image_as_viewers_show_it(bright, tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # stored with a quarter turn to the left
    wide = np.zeros((8, 16, 3), np.uint8)
    wide[:, :8] = 255
    Image.fromarray(np.rot90(wide)).save(tmp_path / "a.png", exif=exif)
    out = tmp_path / "out"
    out.mkdir()
    np.testing.assert_array_equal(np.asarray(Image.open(predict(bright, tmp_path, out)[0])), wide[..., 0])


def test_predicting_into_the_images_folder_is_refused(bright, tmp_path):
    save(tmp_path / "a.png", np.zeros((8, 8), np.uint8))
    for source in (tmp_path, tmp_path / "a.png"):
        with pytest.raises(ValueError, match="the masks would lie among the images"):
            predict(bright, source, tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    broken = bright._replace(apply=lambda variables, x: x[..., :1] * jnp.nan)
    with pytest.raises(ValueError, match=r"NaN for the image of a\.png"):
        predict(broken, tmp_path, out)
