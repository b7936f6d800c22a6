"""How often several designs of a trial find a better arm for the same seconds, and how often they find one that is not better.

    python tests/benchmarks/trial_designs.py --trials 1000

Trials are simulated image by image, as in arms.py: eight arms, seeds that scatter by a point, 3,000 held-out images, the seconds of
three seeds of all arms. In short runs a share of a difference shows, and each arm has an advantage or a drawback of its own there.
A row has the most false winners, and the most trials with any false difference, among equal arms and beside a better one.
"""

import argparse
import sys
from pathlib import Path
from statistics import NormalDist, fmean

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from simulated import ARMS, METRICS, PARTS, answers

from robusttune.trial.decision.metrics import Accuracies, Metric
from robusttune.trial.decision.sequential import standing
from robusttune.trial.decision.significance import differences, holm, images_variance
from robusttune.trial.screening import looks_for

PLAIN, BETTER, NOTHING = 2, 4, 0
TRAINED = [arm for arm in range(len(ARMS)) if arm != NOTHING]
IMAGES, SEEDS, SCATTER = 3000, 3, 0.01
OWN = 0.005  # standard deviation of an arm's own advantage in short runs
WORTHWHILE = 0.02
GAINS = (0.0, 0.03, 0.05)
NEED = Metric("attack", "linf", 0.1, "at", True)
NORMAL = NormalDist()


class World:
    """Arms whose true accuracies are known, and images that are hard for all of them, or for one."""

    def __init__(self, gain: float, generator) -> None:
        self.truth = np.full(len(ARMS), 0.6)
        self.truth[NOTHING], self.truth[BETTER] = 0.05, 0.6 + gain
        self.generator = generator
        common, of_arm, self.rest = (np.sqrt(part) for part in PARTS)
        hard = generator.standard_normal
        self.hardness = common * hard((1, IMAGES)) + of_arm * hard((len(ARMS), IMAGES))
        self.own = OWN * generator.standard_normal(len(ARMS))
        self.untrained = self.hardness[NOTHING] + self.rest * hard(IMAGES)

    def runs(self, arms, seeds: int, images: slice, length: float = 1.0):
        """Right answers (A,S,M) of some arms after runs of this length, as a share of a full one."""
        shown = 1.0 if length == 1 else 0.5 + 0.6 * length  # 0.7 in a third, 0.8 in half
        right = []
        for arm in arms:
            hardness = self.hardness[arm, images]
            if arm == NOTHING:
                one = self.untrained[images] < NORMAL.inv_cdf(self.truth[NOTHING])
                right.append(np.broadcast_to(one, (seeds, one.size)))
                continue
            truth = 0.6 + shown * (self.truth[arm] - 0.6) + (self.own[arm] if length < 1 else 0.0)
            drawn = (truth + SCATTER * self.generator.standard_normal(seeds)).clip(0.001, 0.999)
            bars = np.array([NORMAL.inv_cdf(each) for each in drawn])
            noise = self.rest * self.generator.standard_normal((seeds, hardness.size))
            right.append(hardness + noise < bars[:, None])
        return np.stack(right).astype(np.float32)


def measured(right, arms) -> Accuracies:
    """The accuracies of right answers (A,S,M), as the library reads them."""
    values = right.mean(axis=-1)[..., None]
    spread = np.sqrt(values * (1 - values) / right.shape[-1])
    untrained = frozenset(number for number, arm in enumerate(arms) if arm == NOTHING)
    names, seeds = tuple(map(str, arms)), tuple(range(right.shape[1]))
    seconds = np.ones(values.shape[:2])
    return Accuracies(names, seeds, (NEED,), values, spread, (right,), seconds, right.shape[-1], untrained, ())


def confirmed(world: World, arms, images: slice, seconds: float, measuring: float, comparisons=None):
    """Arms found better, arms found worse, and the seconds that were taken, of seeds that are looked at up to four times."""
    share = (images.stop - images.start) / IMAGES
    each = (len(arms) - 1) * (1 + measuring * share)
    seeds = min(20, int((seconds - measuring * share) / each))
    right = world.runs(arms, seeds, images)
    pairs = [(0, arm) for arm in range(1, len(arms))] + [(1, arm) for arm in range(2, len(arms))]
    seen = standing(
        measured(right, arms), pairs, looks_for(seeds), worthwhile=WORTHWHILE, comparisons=comparisons, stop=True
    )
    found = {1: set(), -1: set()}
    for row, (baseline, arm) in enumerate(pairs):
        if baseline == 1 and seen.real[row, 0]:
            found[1 if seen.value[row, 0] > 0 else -1].add(arms[arm])
    return found[1], found[-1], measuring * share + seen.seeds * each, seen.answered(pairs)


def best(world: World, arms, keep: int, seeds: int, images: slice, length: float):
    """The plain arm and the best of the others after short runs."""
    means = world.runs(arms, seeds, images, length).mean(axis=(1, 2))
    order = [arm for _, arm in sorted(zip(-means, arms, strict=True)) if arm != PLAIN]
    return [PLAIN, *order[: keep - 1]]


def two_stages(world: World, seconds: float, measuring: float, *, keep=3, images=1000, seeds=2, again=False):
    """Two short runs of all arms; those that are kept are confirmed, on other images unless `again`."""
    kept = best(world, TRAINED, keep, seeds, slice(0, images), 1 / 3)
    # the screening measures the needs alone, by fewer steps
    spent = len(TRAINED) * seeds * (1 / 3 + measuring * images / IMAGES / 4)
    rest = slice(0 if again else images, IMAGES)
    comparisons = 2 * len(TRAINED) - 1 if again else None
    better, worse, taken, answered = confirmed(world, [NOTHING, *kept], rest, seconds - spent, measuring, comparisons)
    return better, worse, spent + taken, answered


def halving(world: World, seconds: float, measuring: float):
    """Short runs of all arms, longer ones of half of them, and all that is left for the best beside the plain one."""
    images, share = slice(0, 1000), measuring / 3 / 4
    four = best(world, TRAINED, 4, 2, images, 1 / 3)
    two = best(world, four, 2, 2, images, 1 / 2)
    spent = 2 * len(TRAINED) * (1 / 3 + share) + 2 * len(four) * (1 / 2 + share)
    better, worse, taken, answered = confirmed(world, [NOTHING, *two], slice(1000, IMAGES), seconds - spent, measuring)
    return better, worse, spent + taken, answered


def all_at_once(world: World, seconds: float, measuring: float):
    """Three seeds of all arms, looked at once, on this need alone."""
    arms = [NOTHING, PLAIN, *(arm for arm in TRAINED if arm != PLAIN)]
    return confirmed(world, arms, slice(0, IMAGES), seconds, measuring)


DESIGNS = {
    "two stages, three arms kept (the default)": two_stages,
    "two stages, two arms kept": lambda *given: two_stages(*given, keep=2),
    "two stages, four arms kept": lambda *given: two_stages(*given, keep=4),
    "two stages, 500 images for the screening": lambda *given: two_stages(*given, images=500),
    "two stages, the same images in both": lambda *given: two_stages(*given, images=IMAGES, again=True),
    "two stages, three seeds in the screening": lambda *given: two_stages(*given, seeds=3),
    "successive halving": halving,
    "all arms at once, one need": all_at_once,
}


def before(trials: int, gain: float):
    """The design of before: three seeds of all arms, eleven metrics, all comparisons corrected together."""
    generator, truth = np.random.default_rng(1), np.full((len(ARMS), len(METRICS)), 0.6)
    truth[NOTHING], truth[BETTER] = 0.05, 0.6 + gain
    pairs = [(NOTHING, arm) for arm in TRAINED] + [(PLAIN, arm) for arm in TRAINED if arm != PLAIN]
    rows = [row for row, (first, _) in enumerate(pairs) if first == PLAIN]
    won, false, found = [], [], []
    for _ in range(trials):
        right = answers(truth, seeds=SEEDS, images=IMAGES, generator=generator).astype(np.float32)
        each = right.swapaxes(1, 2)
        images = np.stack([images_variance(each[first], each[second]) for first, second in pairs])
        tests = differences(right.mean(axis=-1), pairs, untrained={NOTHING}, images=images, count=IMAGES)
        real = holm(tests.p)[rows] < 0.05
        better = real & (tests.value[rows] > 0)
        mine = np.array([pairs[row][1] == BETTER for row in rows]) if gain else np.zeros(len(rows), dtype=bool)
        won.append(better[~mine].any())
        false.append(real[~mine].any())
        found.append(real[mine].mean() if gain else 0.0)
    return fmean(won), fmean(false), fmean(found)


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--designs", nargs="+", choices=[*DESIGNS, "before"], default=[*DESIGNS, "before"])
    parser.add_argument(
        "--measuring", type=float, default=1.0, help="time to measure a model, as a multiple of its training"
    )
    options = parser.parse_args()
    print("| design | false winners | any false difference | 3 points found | 5 points found | answered | seconds |")
    print("|---|---|---|---|---|---|---|")
    for name in options.designs:
        if name == "before":
            print(
                row("three seeds of all arms, all needs (before)", [before(options.trials, gain) for gain in GAINS]),
                flush=True,
            )
        else:
            print(row(name, [simulated(name, options, gain) for gain in GAINS]), flush=True)


def simulated(name: str, options: argparse.Namespace, gain: float):
    """Rates of a design: false winners, any false difference, the better arm found, answered, and its share of the seconds."""
    seconds = SEEDS * len(TRAINED) * (1 + options.measuring) + options.measuring
    generator, results = np.random.default_rng(1), []
    for _ in range(options.trials):
        better, worse, taken, answered = DESIGNS[name](World(gain, generator), seconds, options.measuring)
        wrong = better - ({BETTER} if gain else set())
        results.append((bool(wrong), bool(wrong) or bool(worse), BETTER in better, answered, taken / seconds))
    return np.array(results, dtype=float).mean(axis=0)


def row(name: str, rates) -> str:
    """A row of the table, of the rates at each gain; false ones are those of the gain that has most."""
    false = " | ".join(f"{100 * max(rate[column] for rate in rates):.1f}%" for column in (0, 1))
    found = " | ".join(f"{100 * rate[2]:.0f}%" for rate in rates[1:])
    answered = (
        " to ".join(f"{100 * value:.0f}%" for value in sorted({rates[0][3], rates[2][3]})) if len(rates[0]) > 3 else "–"
    )
    cost = fmean(rate[4] for rate in rates) if len(rates[0]) > 4 else 1.0
    return f"| {name} | {false} | {found} | {answered} | {cost:.2f} |"


if __name__ == "__main__":
    main()
