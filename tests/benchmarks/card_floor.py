"""The least time of a training step on a card, by operations and by memory traffic; see gpu.py.

Operations: those of convolutions and matrix products, divided by the rate of a large matrix product.

Bytes: each convolution and matrix product, forward or back, reads its operands once and writes its results once; all between
them (batch norms, activations, sums, the attack's own step) is taken to be fused into them and to move nothing; SGD reads and
writes each weight and its momentum once, in float32. Divided by the bandwidth of a large copy.

The larger of both is a lower bound: all traffic that is left out, and all time in which one of both waits, comes on top. A step
could pass below it only where a cache keeps what one kernel has written until the next one reads it.
"""

import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry

BYTES = {"fp32": 4, "tf32": 4, "bf16": 2}
STATE = 4 * 4  # bytes for each weight: it and its momentum, read and written


class Traffic(TorchDispatchMode):
    """Counts the elements that convolutions and matrix products read and write."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        results = function(*arguments, **(keywords or {}))
        if function.overloadpacket in flop_registry:
            operands = arguments
            if function.overloadpacket is torch.ops.aten.convolution_backward:
                (gradient, images, weight), (of_images, of_weight, _) = arguments[:3], arguments[-1]
                operands = [gradient, *[weight] * of_images, *[images] * of_weight]
            leaves = tree_leaves((operands, results))
            self.elements += sum(leaf.numel() for leaf in leaves if isinstance(leaf, torch.Tensor))
        return results


def work_of(net, shape, attack_steps):
    """Operations, elements moved, and weights of a step on images of this shape: attack and update; nothing is computed."""
    net, images = net.to("meta"), torch.empty(shape, device="meta")
    labels = torch.empty(len(images), dtype=torch.long, device="meta")
    total = {"operations": 0, "elements": 0}
    for attacks in (True, False):
        net.train(not attacks).requires_grad_(not attacks)
        with FlopCounterMode(display=False) as counter, Traffic() as traffic:
            F.cross_entropy(net(images.detach().requires_grad_(attacks)), labels).backward()
        times = attack_steps if attacks else 1
        total["operations"] += times * counter.get_total_flops()
        total["elements"] += times * traffic.elements
    return {**total, "weights": sum(weight.numel() for weight in net.parameters())}


def floor(work, numbers, *, rates, bandwidth):
    """Milliseconds by operations and by memory, the larger of both, and which it is.

    Args:
        numbers: that the step computes with, such as "bf16".
        rates: of matrix products by numbers, in TFLOP/s.
        bandwidth: of a copy, read and written, in GB/s.
    """
    moved = BYTES[numbers] * work["elements"] + STATE * work["weights"]
    by = {"operations": 1e-9 * work["operations"] / rates[numbers], "memory": 1e-6 * moved / bandwidth}
    limit = max(by, key=by.get)
    return {"operations, ms": by["operations"], "memory, ms": by["memory"], "limit": limit, "floor, ms": by[limit]}
