"""A decision as a page: the verdict first, then the numbers that it rests on."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from robusttune.measuring.record import percent
from robusttune.trial.decision import checklists
from robusttune.trial.decision.criteria import ATTACK, CORRUPTION
from robusttune.trial.decision.findings import Claim, leaders
from robusttune.trial.decision.metrics import Measured, Need
from robusttune.trial.decision.next_stage import Stage
from robusttune.trial.decision.pareto import draw, front, goals
from robusttune.trial.decision.significance import FEWEST_SEEDS, Numbers, half_width
from robusttune.trial.decision.verdict import Decision, Verdict, pretext_arms

HOW = (
    "The unit is the seed: of each arm and its baseline the accuracies with the same seeds and on the same images are "
    "subtracted, and the mean of these differences is tested against their scatter from seed to seed (Student's t) and the "
    "chance by which images were held out. As a few seeds tell little of the scatter of one arm, that of all trained arms "
    "together is used, or more where a pair scatters more. “Real” is what is left after Holm's correction for all "
    "comparisons in the tables below: among arms that are equally good, about one report in twenty or fewer calls any "
    "difference real. The rest is “noise”: not a proof that arms are equal, but nothing to build on. The ± is half of the width "
    "of a difference's own 95% interval."
)


def markdown(decision: Decision, folder: Path) -> str:
    """The whole report; its picture goes into the folder."""
    seen = decision.measured
    parts = [
        "# What the trial says",
        _verdict(decision),
        "## The arms",
        _arms(seen),
        "## Which arm for which need",
        _needs(decision),
        *_matrices(decision),
        "## Cost, clean and robust accuracy",
        _front(decision, folder),
        "## What was not tested",
        _bullets(checklists.not_tested(decision)),
        "## Next stage",
        _next(decision),
        "## Questions before production",
        _bullets(checklists.questions(decision)),
        "## Standard evaluation items",
        checklists.items(decision),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _verdict(decision: Decision) -> str:
    seen, titles = decision.measured, {Verdict.GO_ON: "Go on", Verdict.DO_NOTHING: "Do nothing"}
    lines = [f"**{titles.get(decision.verdict, 'Not enough data to tell')}.** {decision.reason}", ""]
    lines += [f"- **Do not rely on this before it is cleared up**: {each}" for each in checklists.doubts(decision)]
    if decision.verdict is Verdict.GO_ON:
        lines += [f"- {_pretext(decision)}"]
    count = f"{len(seen.arms)} arms, {len(seen.seeds)} seed{'s' * (len(seen.seeds) > 1)}, {seen.images} held-out images"
    accepted = "any" if decision.clean_loss is None else f"up to {100 * decision.clean_loss:.3g} points of"
    lines += [
        f"- It rests on {count}. A gain counts from {100 * decision.worthwhile:.3g} points on; {accepted} loss of clean "
        "accuracy is accepted.",
        "- Accuracies under attack are upper bounds, as a stronger attack may find more. Nothing here promises a gain "
        "elsewhere: it is what was measured on these images.",
        *(f"- {each}." for each in seen.left_out),
    ]
    return "\n".join(lines)


def _pretext(decision: Decision) -> str:
    """What pretext tasks did beside the arm without."""
    arms = pretext_arms(decision.trial, decision.measured)
    if not arms:
        return "No arm had a pretext task."
    if decision.plain is None:
        return (
            "There is no arm of adversarial training without pretext task, so whether pretext tasks pay cannot be told."
        )
    own = [
        each for each in decision.findings.claims if each.baseline == decision.plain and each.arm in arms and each.real
    ]
    found: dict[str, list[str]] = {}
    for each in own:
        found.setdefault(f"{each.arm} {'gains' if each.value > 0 else 'loses'} on", []).append(label(each.need))
    said = [f"{who} {', '.join(where)}" for who, where in found.items()]
    if not said:
        return f"No arm with a pretext task differs from {decision.plain} by more than chance, for any need."
    return f"Pretext tasks, beside {decision.plain}, by more than chance: {'; '.join(said)}. All else is noise."


def label(need: Need) -> str:
    """A need, in a few words."""
    if need.kind == ATTACK:
        return f"{need} ({'radius' if need.place == 'at' else need.place})"
    return f"{need} corruptions" if need.kind == CORRUPTION else str(need)


def _arms(seen: Measured) -> str:
    enough = len(seen.seeds) >= FEWEST_SEEDS
    what = "half of the width of its 95% interval over seeds" if enough else "the smallest and the largest over seeds"
    rows = []
    for number, arm in enumerate(seen.arms):
        trained = number not in seen.untrained
        cells = [_over_seeds(seen.values[number, :, column], trained, enough) for column in range(len(seen.needs))]
        rows.append([arm, *cells, _time(float(seen.seconds[number].mean())) if trained else "none"])
    head = ["arm", *map(label, seen.needs), "training, a seed"]
    against = [str(need) for need in seen.needs if need.trained and need.place == "at"]
    told = f" Arms that meet an adversary train against {against[0]}." if against else ""
    radius = f"“Radius” is the one that the plan names for a norm, in pixel units on [0, 1].{told}"
    return f"Accuracy in percent: the mean, and {what}. {radius}\n\n{_table(head, rows)}"


def _over_seeds(values: Numbers, trained: bool, enough: bool) -> str:
    mean = 100 * float(values.mean())
    if not trained or len(values) < 2:
        return f"{mean:.1f}"
    if enough:
        half = float(half_width(values.std(ddof=1) / np.sqrt(len(values)), len(values) - 1))
        return f"{mean:.1f} ±{100 * half:.1f}"
    return f"{mean:.1f} ({100 * float(values.min()):.1f}–{100 * float(values.max()):.1f})"


def _needs(decision: Decision) -> str:
    seen, found = decision.measured, decision.findings
    against = [each for each in (decision.nothing, decision.plain) if each is not None]
    rows = []
    for column, need in enumerate(seen.needs):
        means = seen.values[:, :, column].mean(axis=1)
        if np.ptp(means) == 0:  # as beyond a radius that no arm withstands
            rows.append([label(need), "all alike", percent(float(means[0])), *("–" for _ in against), "–"])
            continue
        best, *same = [seen.arms[arm] for arm in leaders(seen, found, column)]
        beside = [_beside(decision, best, baseline, need) for baseline in against]
        told = (", ".join(same) or "–") if found.claims else "not enough data"
        rows.append([label(need), best, percent(float(means[seen.arms.index(best)])), *beside, told])
    head = ["need", "highest", "mean", *(f"over {each}" for each in against), "cannot be told from it"]
    return _table(head, rows)


def _beside(decision: Decision, arm: str, baseline: str, need: Need) -> str:
    if arm == baseline:
        return "–"
    claim = decision.findings.claim(arm, baseline, need)
    if claim is None:  # of two baselines, the claim is about the second
        claim = decision.findings.claim(baseline, arm, need)
        return "not enough data" if claim is None else _difference(claim, -1)
    return _difference(claim)


def _difference(claim: Claim, sign: int = 1, words: bool = True) -> str:
    points = round(100 * sign * claim.value, 1) + 0.0  # no -0.0
    told = f"{points:+.1f} ±{50 * (claim.high - claim.low):.1f}"
    if claim.real:
        return f"**{told}{', real' * words}**"
    return f"{told}{', noise' * words}"


def _matrices(decision: Decision) -> list[str]:
    """Every arm beside each baseline, for every need."""
    claims, seen = decision.findings.claims, decision.measured
    if not claims:
        return []
    parts = ["## Is the difference real, or noise?", HOW]
    for baseline in dict.fromkeys(each.baseline for each in claims):
        own = {(each.arm, each.need): each for each in claims if each.baseline == baseline}
        arms = dict.fromkeys(arm for arm, _ in own)
        rows = [[arm, *(_difference(own[arm, need], words=False) for need in seen.needs)] for arm in arms]
        parts += [f"Points of accuracy over **{baseline}**; bold is real, all else noise:"]
        parts += [_table(["arm", *map(label, seen.needs)], rows)]
    return parts


def _front(decision: Decision, folder: Path) -> str:
    seen = decision.measured
    names = [label(need) for need in goals(seen)]
    on_it = front(seen)
    behind = [arm for arm in seen.arms if arm not in on_it]
    told = f"By their means, no other arm is as good or better on time and {' and '.join(names)} at once: {', '.join(on_it)}."
    told += f" Behind them (hollow in the picture): {', '.join(behind)}." if behind else ""
    alike = [f"{arm} (like {', '.join(cheaper)})" for arm in on_it if (cheaper := _cheaper(decision, arm))]
    told += f" Of these, some cannot be told from arms that cost less: {'; '.join(alike)}." if alike else ""
    pictures = " ".join(f"![{words}]({file})" for words, file in draw(seen, folder))
    return f"{told} Bars are the range over seeds.\n\n{pictures}"


def _cheaper(decision: Decision, arm: str) -> list[str]:
    """The arms that cost less and cannot be told apart on clean or robust accuracy; none with too few seeds."""
    seen, found = decision.measured, decision.findings
    number, cost = seen.arms.index(arm), seen.seconds.mean(axis=1)
    columns = [seen.needs.index(need) for need in goals(seen)]
    same = [
        not found.apart[number, other][columns].any() and cost[other] < cost[number] for other in range(len(seen.arms))
    ]
    return [each for each, alike in zip(seen.arms, same, strict=True) if alike] if found.claims else []


def _next(decision: Decision) -> str:
    stage = decision.next
    if stage is None:
        return "None. Ask again when the threat, the data or the model changes, or a larger trial is worth its cost."
    lines = [
        f"- **Arms**: {', '.join(stage.arms)}; arms without pretext task always go along.",
        f"- **Seeds**: {_seeds(decision, stage)}",
    ]
    data = "as many images" if stage.images is None else f"{stage.images:,} images"
    lines += [
        f"- **Training**: on {data}, {stage.epochs} epochs, {_time(stage.training)}; measuring {_time(stage.evaluation)}."
    ]
    whole = f"- **Estimated cost**: {_time(stage.training + stage.evaluation)} on the machine of this trial"
    lines += [f"{whole}, {stage.money:,.2f} at the plan's price." if stage.money is not None else f"{whole}."]
    trained = {arm: seconds for arm, seconds in stage.per_arm.items() if seconds > 0}
    rows = [[f"{times}×", *(_time(times * each) for each in trained.values())] for times in (1, 10, 100)]
    table = _table(["images × epochs", *trained], rows)
    return "\n".join(lines) + f"\n\nTraining of one seed, as images and epochs grow:\n\n{table}"


def _seeds(decision: Decision, stage: Stage) -> str:
    if stage.difference is None:
        return f"{stage.seeds}, as the scatter is not known yet."
    wanted, found = 100 * decision.worthwhile, 100 * stage.difference
    if stage.difference <= decision.worthwhile:
        return f"{stage.seeds}. By the scatter seen here, they find a difference of {wanted:.3g} points 8 times in 10."
    least = stage.least or 0.0
    why = "takes more than 20 seeds"
    if least > decision.worthwhile:
        enough = int(np.ceil(decision.measured.images * (least / decision.worthwhile) ** 2 / 100)) * 100
        why = f"takes more than {enough:,} held-out images, with however many seeds"
    return f"{stage.seeds}, which find a difference of {found:.1f} points 8 times in 10; to find {wanted:.3g} points {why}."


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    value, unit = (seconds / 60, "min") if seconds < 7200 else (seconds / 3600, "h")
    return f"{value:.1f} {unit}" if value < 10 else f"{value:,.0f} {unit}"


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
