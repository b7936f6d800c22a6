"""One step of RobustLoss as a naive script: one image and one view at a time, sharing nothing but the draws."""

import copy
from itertools import permutations
from typing import NamedTuple

import torch
from third_parties import BETA, EPS, SIDE, STEP, WEIGHTS, gradients, pattern


class Drawn(NamedTuple):
    """What was drawn for one image: its views as (task, target, weight), and its turned patch, if any."""

    views: list
    patch: tuple | None


def naive_gradients(robust_loss, images, labels, trades):
    """The loss and its gradients by name that a robust_loss (N>1, train mode, not yet called) should give."""
    robust_loss = copy.deepcopy(robust_loss)
    drawn = naive_draws(robust_loss, images)
    images = torch.stack([turned_patch(image, draw.patch) for image, draw in zip(images, drawn, strict=True)])
    script = Naive(robust_loss, trades, images.shape)
    robust_loss.model.eval()
    adversarial, views = [], []
    for image, label, draw in zip(images, labels, drawn, strict=True):
        adversarial.append(naive_attack(script.attack_loss(image, label, draw), image))
        views += script.attacked_views(image, adversarial[-1], draw)
    robust_loss.model.train()
    loss = script.loss(images, torch.stack(adversarial), labels, drawn, views) / len(images)
    loss.backward()
    return float(loss.detach()), gradients(robust_loss)


def naive_draws(robust_loss, images):
    """The package's own draws, told image by image, with the weights written anew."""
    chance, _ = robust_loss._generators(images.device)
    shared = robust_loss.heads.shared(images, chance)[1]
    parts = robust_loss.heads.draw(images, chance)
    patches = robust_loss.heads.tasks["patch"].drawn.tolist() if shared else [None] * len(images)
    drawn = [Drawn([], patch) for patch in patches]
    for part in parts:
        for row, target in zip(part.rows.tolist(), part.view.targets.tolist(), strict=True):
            drawn[row].views.append((part.task, target, WEIGHTS[part.task] * len(parts) / robust_loss.heads.views))
    return drawn


class Naive:
    def __init__(self, robust_loss, trades, shape):
        self.body, self.classifier = robust_loss.model.body, robust_loss.model.classifier
        self.heads, self.how, self.trades = robust_loss.heads, robust_loss.attack_tasks, trades
        self.choices = {"rotation": 4 if shape[2] == shape[3] else 2, "jigsaw": 24, "patch": 4}

    def features(self, image):
        return self.body(image[None])[0]

    def head_loss(self, task, features, target):
        return entropy(self.heads[task](features)[: self.choices[task]], target)

    def attack_loss(self, image, label, draw):
        clean = self.classifier(self.features(image)).detach()

        def of(candidate):
            features = self.features(candidate)
            logits = self.classifier(features)
            loss = divergence(clean, logits) if self.trades else entropy(logits, label)
            if self.how == "joint":
                for task, target, weight in draw.views:
                    loss = loss + weight * self.head_loss(task, self.features(a_view(task, candidate, target)), target)
                if draw.patch:
                    loss = loss + WEIGHTS["patch"] * self.head_loss("patch", features, draw.patch[2])
            return loss

        return of

    def attacked_views(self, image, adversarial, draw):
        found = []
        for task, target, weight in draw.views:
            view = a_view(task, image if self.how == "separate" else adversarial, target)
            if self.how == "separate":
                view = naive_attack(lambda v, t=task, y=target: self.head_loss(t, self.features(v), y), view)
            found.append((task, target, weight, view))
        return found

    def loss(self, images, adversarial, labels, drawn, views):
        """Summed over the images; batch norm makes each of the three batches one forward."""
        loss, clean, features = 0, self.classifier(self.body(images)), self.body(adversarial)
        for n, draw in enumerate(drawn):
            logits = self.classifier(features[n])
            if self.trades:
                loss = loss + entropy(clean[n], labels[n]) + BETA * divergence(clean[n], logits)
            else:
                loss = loss + entropy(logits, labels[n])
            if draw.patch:
                loss = loss + WEIGHTS["patch"] * self.head_loss("patch", features[n], draw.patch[2])
        rows = self.body(torch.stack([view for *_, view in views])) if views else []
        for row, (task, target, weight, _) in zip(rows, views, strict=True):
            loss = loss + weight * self.head_loss(task, row, target)
        return loss


def turned_patch(image, patch):
    image = image.clone()
    if patch:
        top, left, turns = patch
        square = image[:, top : top + SIDE, left : left + SIDE]
        square.copy_(torch.rot90(square.clone(), turns, (1, 2)))
    return image


def a_view(task, image, target):
    _, height, width = image.shape
    if task == "rotation":
        return torch.rot90(image, target if height == width else 2 * target, (1, 2))
    tall, wide = height // 2, width // 2
    top, left = (height - 2 * tall) // 2, (width - 2 * wide) // 2
    order, view = list(permutations(range(4)))[target], image.clone()
    for place, tile in enumerate(order):
        (y, x), (v, u) = [(top + n // 2 * tall, left + n % 2 * wide) for n in (place, tile)]
        view[:, y : y + tall, x : x + wide] = image[:, v : v + tall, u : u + wide]
    return view


def entropy(logits, label):
    return torch.logsumexp(logits, 0) - logits[label]


def divergence(clean, logits):
    return (torch.softmax(clean, 0) * (torch.log_softmax(clean, 0) - torch.log_softmax(logits, 0))).sum()


def naive_projection(candidate, image):
    delta = (candidate - image).detach()
    return (image + delta * min(1.0, EPS / float(delta.norm()))).clamp(0, 1)


def naive_attack(loss, image):
    start = naive_projection(image + pattern(image), image).requires_grad_()
    (gradient,) = torch.autograd.grad(loss(start), start)
    return naive_projection(start + STEP * gradient / gradient.norm(), image)
