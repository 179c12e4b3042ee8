"""Children trained per minute: ours, each strategy, beside PyTorch eager training the same children one by one.

    python benchmarks/population.py [--size=8] [--children=8] [--steps=60] [--strategies=exact,vmap] [--dtype=float32]

Fixed workload: 6 layers, v1's value sets, batch 64, whitening and padded random crops inside the step, BN, SGD with
Nesterov momentum and weight decay, one validation of 256 images at the end; 8x8x1 (digits) and 32x32x3 (CIFAR). Both
sides train the same architectures on the same number of steps in turn, child by child where they can. "Steps" is a
second pass with every program compiled; "end to end" is the first, compilation included, nothing cached on disk.
"""

import argparse
import json
import platform
import time

import jax
import numpy as np
import torch
import torch.nn.functional as F

from nasjax.data.dataset import Dataset, Split
from nasjax.evaluators.child import child
from nasjax.spaces.conv_chain import ConvChain
from nasjax.spaces.conv_plan import IMAGE, Plan, plan
from nasjax.train.augment import Augment
from nasjax.train.recipe import Recipe
from nasjax.types import Proposal

BATCH = 64
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--size", type=int, default=8)
parser.add_argument("--children", type=int, default=8)
parser.add_argument("--steps", type=int, default=60)
parser.add_argument("--strategies", default="exact")
parser.add_argument("--chunk", type=int, default=None)
parser.add_argument("--dtype", default="float32")
parser.add_argument("--seed", type=int, default=0)


class Net(torch.nn.Module):
    """The same network from the same plan (no strides or pools in this workload)."""

    def __init__(self, planned: Plan) -> None:
        super().__init__()
        self.plan = planned
        convs = [
            torch.nn.Conv2d(p.in_channels, p.filters, p.kernel, padding=[k // 2 for k in p.kernel], bias=False)
            for p in planned.layers
        ]
        self.convs = torch.nn.ModuleList(convs)
        self.norms = torch.nn.ModuleList([torch.nn.BatchNorm2d(p.filters) for p in planned.layers])
        self.head = torch.nn.Linear(planned.head_channels, planned.classes)
        for conv in convs:
            torch.nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        outputs = {IMAGE: image}
        for i, layer in enumerate(self.plan.layers):
            parts = [outputs[s.layer] for s in layer.sources]
            x = torch.cat(parts, 1) if len(parts) > 1 else parts[0]
            outputs[i] = F.relu(self.norms[i](self.convs[i](x)))
        parts = [outputs[s.layer] for s in self.plan.head]
        return self.head((torch.cat(parts, 1) if len(parts) > 1 else parts[0]).mean((2, 3)))


def torch_child(
    planned: Plan, data: dict[str, torch.Tensor], steps: int, pad: int, device: str, layout: object
) -> float:
    """Trains one child; its validation accuracy."""
    net = Net(planned).to(device, memory_format=layout)
    optimiser = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
    order = torch.randperm(len(data["y"]), device=device)
    height, width = data["x"].shape[2:]
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    for t in range(steps):
        index = order[t * BATCH : (t + 1) * BATCH]
        x = (data["x"][index].float() / 255 - data["mean"]) / data["std"]
        padded = F.pad(x, (pad,) * 4)
        shift = torch.randint(0, 2 * pad + 1, (2, BATCH, 1, 1), device=device)
        r, c = rows[None, :, None] + shift[0], columns[None, None, :] + shift[1]
        x = padded[torch.arange(BATCH, device=device)[:, None, None], :, r, c].permute(0, 3, 1, 2)
        loss = F.cross_entropy(net(x.contiguous(memory_format=layout)), data["y"][index])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    net.eval()
    with torch.no_grad():
        logits = net((data["vx"].float() / 255 - data["mean"]) / data["std"])
    return (logits.argmax(1) == data["vy"]).float().mean().item()


def main() -> None:
    args = parser.parse_args()
    channels = 1 if args.size == 8 else 3
    pad = max(1, args.size // 8)
    rng = np.random.default_rng(0)
    image = (args.size, args.size, channels)

    def part(n: int) -> Split:
        return Split(rng.integers(0, 256, (n, *image), np.uint8), rng.integers(0, 10, n).astype(np.int32))

    train, valid = part(args.steps * BATCH), part(256)
    mean, std = np.full(channels, 0.5, np.float32), np.full(channels, 0.29, np.float32)
    data = Dataset("random", 10, tuple("0123456789"), train, valid, mean, std, "")
    space = ConvChain()  # 6 layers, v1's value sets
    archs = np.asarray(jax.vmap(space.sample)(jax.random.split(jax.random.key(args.seed), args.children)))
    plans = [plan(space, arch, image, 10) for arch in archs]
    recipe = Recipe(epochs=1, augment=Augment("pad", pad, False), dtype=args.dtype)
    proposal = Proposal(np.arange(args.children), archs, np.full(args.children, -1))

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(2)
    if args.dtype != "float32":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    arrays = {"x": train.x, "y": train.y.astype(np.int64), "vx": valid.x, "vy": valid.y.astype(np.int64)}
    tensors = {
        name: torch.from_numpy(np.moveaxis(v, -1, 1) if v.ndim == 4 else v).to(device) for name, v in arrays.items()
    }
    tensors |= {
        "mean": torch.full((1, channels, 1, 1), 0.5, device=device),
        "std": torch.full((1, channels, 1, 1), 0.29, device=device),
    }
    layouts = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
    seconds: dict[str, dict[str, float]] = {}

    def timed(name: str, column: str, work: object) -> None:
        began = time.perf_counter()
        work()  # type: ignore[operator]
        seconds.setdefault(name, {})[column] = time.perf_counter() - began

    def torch_all(layout: object) -> None:
        for planned in plans:
            torch_child(planned, tensors, args.steps, pad, device, layout)

    torch_child(plans[0], tensors, 3, pad, device, torch.contiguous_format)  # warm-up
    evaluators = {
        name: child(space, data, recipe=recipe, strategy=name, last_epochs=1, chunk=args.chunk)
        for name in args.strategies.split(",")
    }
    for column in ("end to end", "steps"):
        for name, evaluator in evaluators.items():
            timed(name, column, lambda e=evaluator: e.evaluate(jax.random.key(0), proposal, None))
        for name, layout in layouts.items():
            timed(f"torch {name}", column, lambda layout=layout: torch_all(layout))
    torch_names = [f"torch {name}" for name in layouts]
    best = min(torch_names, key=lambda name: seconds[name]["steps"])
    macs = np.mean([p.macs for p in plans])
    print(
        f"{args.children} children, {args.steps} steps of {BATCH} images, {args.size}x{args.size}x{channels}, "
        f"{macs / 1e6:.1f}M multiply-adds an image, {args.dtype}"
    )
    print(
        f"jax {jax.__version__} on {jax.devices()[0].device_kind}, torch {torch.__version__} on {device}, {platform.machine()}"
    )
    print("| who | ms a step | children a minute | compile s a child | x torch, steps | x torch, end to end |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, times in seconds.items():
        compile_s = (times["end to end"] - times["steps"]) / args.children
        print(
            f"| {name} | {times['steps'] / args.children / args.steps * 1e3:.1f} | "
            f"{60 * args.children / times['end to end']:.1f} | {max(compile_s, 0):.2f} | "
            f"{seconds[best]['steps'] / times['steps']:.2f} | {seconds[best]['end to end'] / times['end to end']:.2f} |"
        )
    print(json.dumps({"settings": vars(args), "seconds": seconds, "torch": best}))


if __name__ == "__main__":
    main()
