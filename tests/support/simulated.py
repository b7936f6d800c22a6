"""Simulated trials: arms with known accuracies, scatter from seed to seed, and images that are hard for all arms."""

from statistics import NormalDist

import numpy as np

from robusttune.measuring.record import accuracy
from robusttune.measuring.records import Records
from robusttune.trial.plan import TrialPlan
from robusttune.trial.results import Result, Trial

ARMS = {
    "nothing": [],
    "ordinary": [{"ordinary": {"augment": "augmix"}}],
    "adversarial": [{"harden": {"tasks": None}}],
    "pretrained_ordinary": [{"pretrain": {"share": 0.25}}, {"ordinary": {"augment": "augmix"}}],
    "pretrained_adversarial": [{"pretrain": {"share": 0.25}}, {"harden": {"tasks": None}}],
    "rotation_none": [{"harden": {"tasks": {"rotation": 0.5}, "attack_tasks": "none"}}],
    "rotation_separate": [{"harden": {"tasks": {"rotation": 0.5}, "attack_tasks": "separate"}}],
    "rotation_joint": [{"harden": {"tasks": {"rotation": 0.5}, "attack_tasks": "joint"}}],
}
THREATS = {"linf": 0.1, "l2": 1.0}
FAMILIES = {"noise": "gaussian_noise", "blur": "defocus_blur", "weather": "fog", "digital": "contrast"}
METRICS = ("clean", *((norm, m) for norm in THREATS for m in (0.5, 1.0, 2.0)), *FAMILIES)
# Shares of the variance of an image's hardness: of the image, of the arm and the image, of the seed with both.
PARTS = (0.6, 0.15, 0.25)


def answers(truth, *, seeds, images, scatter=0.01, parts=PARTS, generator):
    """Draw right answers (A,S,N,M) for true accuracies (A,N); arm 0 is one model, the same with every seed."""
    arms, metrics = truth.shape
    shifted = truth[:, None] + scatter * generator.standard_normal((arms, seeds, metrics))
    shifted[0] = truth[0]
    normal = np.vectorize(NormalDist().inv_cdf)
    bars = normal(shifted.clip(0.001, 0.999))
    common, of_arm, rest = (np.sqrt(part) for part in parts)
    hardness = common * generator.standard_normal((1, 1, metrics, images))
    hardness = hardness + of_arm * generator.standard_normal((arms, 1, metrics, images))
    hardness = hardness + rest * generator.standard_normal((arms, seeds, metrics, images))
    hardness[0] = hardness[0, :1]
    bars[0] = bars[0, :1]
    return hardness < bars[..., None]


def trial(truth, *, seeds=3, images=400, seconds=60.0, arms=ARMS, generator=None, **settings):
    """Simulate a Trial of arms with true accuracies (A,N), in the order of ARMS and METRICS."""
    generator = generator or np.random.default_rng(0)
    right = answers(np.asarray(truth), seeds=seeds, images=images, generator=generator, **settings)
    plan = TrialPlan.from_dict(
        {
            "model": "test_resnet",
            "threats": dict(THREATS),
            "epochs": 3,
            "seeds": list(range(seeds)),
            "arms": dict(arms),
            "data": {"training images": 2000, "test images": images},
            "evaluation": {"images": images, "items": ["clean", "sweep", "corruptions"]},
        }
    )
    results = [
        Result(arm, seed, records_of(right[a, seed]), seconds * (1 + 0.4 * a) if phases else 0.0)
        for a, (arm, phases) in enumerate(arms.items())
        for seed in range(seeds)
    ]
    return Trial(plan, results)


def records_of(right):
    """Return the Records of a model with these right answers (N,M)."""
    count = right.shape[1]
    records = []
    for metric, single in zip(METRICS, right, strict=True):
        if metric == "clean":
            name, setting = "clean", {}
        elif metric in FAMILIES:
            name, setting = "corruptions", {"corruption": FAMILIES[metric], "severity": 3, "protocol": "made here"}
        else:
            name, setting = "sweep", {"norm": metric[0], "eps": metric[1] * THREATS[metric[0]], "attack": "apgd"}
        records.append(accuracy(name, int(single.sum()), count, setting, right=single))
    hashes = [f"{number:05d}" for number in range(count)]
    facts = {"evaluations": {"sweep": {"seconds": 30.0}}}
    return Records(records, facts=facts, hashes=hashes, labels=[0] * count)


def hardened(gain=0.0):
    """Return realistic accuracies: hardening costs clean accuracy and gains under attack; `gain` is of joint attacks."""
    #              clean  linf             l2              noise blur weather digital
    untouched = [0.90, 0.20, 0.02, 0.005, 0.30, 0.04, 0.01, 0.62, 0.70, 0.55, 0.60]
    ordinary = [0.90, 0.22, 0.03, 0.005, 0.33, 0.05, 0.01, 0.72, 0.75, 0.63, 0.68]
    plain = [0.82, 0.72, 0.60, 0.25, 0.70, 0.55, 0.22, 0.76, 0.73, 0.52, 0.57]
    rows = [untouched, ordinary, plain, ordinary, plain, plain, plain, plain]
    truth = np.array(rows)
    truth[-1, 1:3] += gain
    return truth


def equal(level=0.6):
    """Return accuracies that are equal for all arms and metrics."""
    return np.full((len(ARMS), len(METRICS)), level)
