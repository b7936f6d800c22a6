"""Decision page: the verdict first, then the numbers behind it."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from robusttune.measuring.glossary import explained, without_code
from robusttune.measuring.record import percent
from robusttune.run.markdown import markdown_table
from robusttune.trial.arms._phase import names_threat
from robusttune.trial.decision import checklists
from robusttune.trial.decision.findings import Comparison, Findings, leaders
from robusttune.trial.decision.metrics import Accuracies, Metric, label, needed
from robusttune.trial.decision.next_stage import costs_in_words, in_time, seeds_in_words
from robusttune.trial.decision.page_of_stages import HOW_WITH_LOOKS, MIXED, TOGETHER, next_command, screening, stages
from robusttune.trial.decision.pareto import draw, front, goals
from robusttune.trial.decision.picture import draw_arms
from robusttune.trial.decision.significance import FEWEST_SEEDS, Numbers, half_width
from robusttune.trial.decision.verdict import Decision, Verdict, accepted_loss, listed, pretext_arms
from robusttune.trial.plan import TrialPlan

HOW = (
    "The unit is the seed: of each arm and its baseline the accuracies with the same seeds and on the same images are "
    "subtracted, and the mean of these differences is tested against their scatter from seed to seed and "
    "from one choice of held-out images to another (Student's t). A few seeds are too few to estimate the scatter of one arm, so the pooled scatter of all "
    "trained arms is used, or a larger one where a pair scatters more. “Real” is a difference that is significant after "
    "Holm's correction for all comparisons in the tables below: among arms that are equally good, about one report in twenty "
    "or fewer calls any difference real. The rest is “noise”: no conclusion can be drawn from it, not even that arms are equal. The ± "
    "is half of the width of a difference's 95% interval, by itself."
)


def markdown(decision: Decision, folder: Path) -> str:
    """Return the whole page; its plots are written into the folder."""
    parts = [
        "# What the trial says",
        _verdict(decision),
        *screening(decision.trial),
        "## The arms",
        _picture(decision, folder),
        _arms(decision.measured, decision.trial.plan),
        "## Which arm for which need",
        _needs(decision, decision.measured, decision.findings),
        *_matrices(decision),
        *_first_sight(decision),
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
    text = "\n\n".join(part for part in parts if part)
    return f"{text}\n\n## Words\n\n{_bullets(f'**{word}**: {meaning}' for word, meaning in explained(without_code(text)).items())}\n"


def _verdict(decision: Decision) -> str:
    measured, titles = decision.measured, {Verdict.GO_ON: "Go on", Verdict.DO_NOTHING: "Do nothing"}
    lines = [f"**{titles.get(decision.verdict, 'Not enough data to tell')}.** {decision.reason}", ""]
    lines += [f"- **Do not rely on this before it is cleared up**: {doubt}" for doubt in checklists.doubts(decision)]
    if decision.verdict is Verdict.GO_ON:
        lines += [f"- {_pretext(decision)}"]
    arms, seeds = len(measured.arms), len(measured.seeds)
    count = f"{arms} arms, {seeds} seed{'s' * (seeds > 1)}, {measured.images} held-out images"
    accepted = accepted_loss(decision)
    lines += [
        f"- It is based on {count}. A gain counts if it is {100 * decision.worthwhile:.3g} points or more; {accepted}.",
        "- Accuracies under attack are upper bounds, as a stronger attack may find more. Nothing here promises a gain "
        "elsewhere: it is what was measured on these images.",
        *(f"- {reason}." for reason in measured.left_out),
        *stages(decision),
        *([f"- {TOGETHER}"] if decision.trial.together else []),
        *([f"- {MIXED.format(mixed)}"] if (mixed := decision.trial.mixed) else []),
    ]
    return "\n".join(lines)


def _pretext(decision: Decision) -> str:
    """Describe the effect of pretext tasks, compared with the arm without them."""
    arms = pretext_arms(decision.trial, decision.measured)
    if not arms:
        return "No arm had a pretext task."
    if decision.plain is None:
        return "There is no arm of adversarial training without pretext task, so it is not known whether pretext tasks pay."
    real = [
        comparison
        for comparison in decision.findings.comparisons
        if comparison.baseline == decision.plain
        and comparison.arm in arms
        and comparison.real
        and not comparison.exploratory
    ]
    changes: dict[str, list[str]] = {}
    for comparison in real:
        change = f"{comparison.arm} {'gains' if comparison.value > 0 else 'loses'} on"
        changes.setdefault(change, []).append(label(comparison.metric))
    if not changes:
        return f"No arm with a pretext task differs from {decision.plain} by more than chance, for any need."
    found = "; ".join(f"{change} {', '.join(metrics)}" for change, metrics in changes.items())
    return f"Pretext tasks, compared with {decision.plain}, by more than chance: {found}. All else is noise."


def _picture(decision: Decision, folder: Path) -> str:
    """Return the picture of the arms on what the trial was to answer; without needs, on the front's goals."""
    measured = decision.measured
    needs = needed(decision.trial.plan, measured.metrics) or goals(measured)
    bars = "the 95% interval over seeds" if len(measured.seeds) >= FEWEST_SEEDS else "the range over seeds"
    return f"![accuracy of each arm]({draw_arms(measured, needs, folder)})\n\nBars are {bars}."


def _arms(measured: Accuracies, plan: TrialPlan) -> str:
    enough = len(measured.seeds) >= FEWEST_SEEDS
    spread = "half of the width of its 95% interval over seeds" if enough else "the smallest and the largest over seeds"
    rows = []
    for number, arm in enumerate(measured.arms):
        trained = number not in measured.untrained
        columns = range(len(measured.metrics))
        cells = [_over_seeds(measured.values[number, :, column], trained, enough) for column in columns]
        rows.append([arm, *cells, in_time(float(measured.seconds[number].mean())) if trained else "none"])
    head = ["arm", *map(label, measured.metrics), "time of one training"]
    against = [str(metric) for metric in measured.metrics if metric.trained and metric.position == "at"]
    others = [arm for arm in measured.arms if names_threat(plan.arms[arm], plan.settings or {})]
    other = f", but {listed(others)} against the threat that the plan names there" if others else ""
    note = f" Arms that meet an adversary train against {against[0]}{other}." if against else ""
    radius = f"“Radius” is the one that the plan names for a norm, in pixel units on [0, 1].{note}"
    return f"Accuracy in percent: the mean, and {spread}. {radius}\n\n{markdown_table(head, rows)}"


def _over_seeds(values: Numbers, trained: bool, enough: bool) -> str:
    mean = 100 * float(values.mean())
    if not trained or len(values) < 2:
        return f"{mean:.1f}"
    if enough:
        half = float(half_width(values.std(ddof=1) / np.sqrt(len(values)), len(values) - 1))
        return f"{mean:.1f} ±{100 * half:.1f}"
    return f"{mean:.1f} ({100 * float(values.min()):.1f}–{100 * float(values.max()):.1f})"


def _needs(decision: Decision, measured: Accuracies, findings: Findings) -> str:
    against = [arm for arm in (decision.nothing, decision.plain) if arm is not None]
    rows = []
    for column, metric in enumerate(measured.metrics):
        means = measured.values[:, :, column].mean(axis=1)
        if np.ptp(means) == 0:  # as beyond a radius that no arm withstands
            rows.append([label(metric), "all alike", percent(float(means[0])), *("–" for _ in against), "–"])
            continue
        best, *same = [measured.arms[arm] for arm in leaders(measured, findings, column)]
        beside = [_beside(findings, best, baseline, metric) for baseline in against]
        others = (", ".join(same) or "–") if findings.comparisons else "not enough data"
        rows.append([label(metric), best, percent(float(means[measured.arms.index(best)])), *beside, others])
    head = ["need", "highest", "mean", *(f"over {arm}" for arm in against), "no significant difference"]
    if decision.trial.plan.looks is not None:
        head[-1] += " (exploratory)"
    return markdown_table(head, rows)


def _beside(findings: Findings, arm: str, baseline: str, metric: Metric) -> str:
    if arm == baseline:
        return "–"
    comparison = findings.comparison(arm, baseline, metric)
    if comparison is not None:
        return _difference(comparison)
    # Two baselines are compared once, the second with the first.
    comparison = findings.comparison(baseline, arm, metric)
    return "not enough data" if comparison is None else _difference(comparison, sign=-1)


def _difference(comparison: Comparison, *, sign: int = 1, words: bool = True) -> str:
    points = round(100 * sign * comparison.value, 1) + 0.0  # no -0.0
    text = f"{points:+.1f} ±{50 * (comparison.high - comparison.low):.1f}"
    if comparison.real and comparison.exploratory:
        return f"{text}{', exploratory' if words else '*'}"
    if comparison.real:
        return f"**{text}{', real' * words}**"
    return f"{text}{', noise' * words}"


def _matrices(decision: Decision) -> list[str]:
    """Return tables of every arm's difference from each baseline, for every metric."""
    if not decision.findings.comparisons:
        return []
    looks = decision.trial.plan.looks
    how = HOW if looks is None else HOW_WITH_LOOKS.format(looks=", ".join(map(str, looks)))
    first = "" if looks is None else ", * is significant, but exploratory"
    note = f"bold is real{first}, all else noise"
    return ["## Is the difference real, or noise?", how, *_tables(decision.measured, decision.findings, note)]


def _first_sight(decision: Decision) -> list[str]:
    """Return what was measured with the seeds of the first look alone."""
    if decision.sight is None:
        return []
    measured, findings = decision.sight
    seeds = len(measured.seeds)
    return [
        "## Exploratory",
        f"Measured with the first {seeds} seed{'s' * (seeds > 1)} alone. It shows where to look; no choice between arms rests on it.",
        _arms(measured, decision.trial.plan),
        _needs(decision, measured, findings),
        *_tables(measured, findings, "* is significant, but exploratory, all else noise"),
    ]


def _tables(measured: Accuracies, findings: Findings, note: str) -> list[str]:
    comparisons, metrics, parts = findings.comparisons, measured.metrics, []
    for baseline in dict.fromkeys(comparison.baseline for comparison in comparisons):
        cells = {(test.arm, test.metric): test for test in comparisons if test.baseline == baseline}
        arms = dict.fromkeys(arm for arm, _ in cells)
        rows = [[arm, *(_difference(cells[arm, metric], words=False) for metric in metrics)] for arm in arms]
        parts += [f"Points of accuracy over **{baseline}**; {note}:"]
        parts += [markdown_table(["arm", *map(label, metrics)], rows)]
    return parts


def _front(decision: Decision, folder: Path) -> str:
    measured = decision.measured
    names = " and ".join(label(metric) for metric in goals(measured))
    best = front(measured)
    behind = [arm for arm in measured.arms if arm not in best]
    text = f"None of these is beaten by another arm on time and {names} together, by their means: {', '.join(best)}."
    text += f" Behind them (hollow in the picture): {', '.join(behind)}." if behind else ""
    alike = [f"{arm} (like {', '.join(cheaper)})" for arm in best if (cheaper := _cheaper(decision, arm))]
    text += (
        f" Of these, some do not differ significantly from arms that cost less: {'; '.join(alike)}." if alike else ""
    )
    pictures = " ".join(f"![{title}]({file})" for title, file in draw(measured, folder))
    return f"{text} Bars are the range over seeds.\n\n{pictures}"


def _cheaper(decision: Decision, arm: str) -> list[str]:
    """List arms that cost less and do not differ significantly on clean or robust accuracy; none with too few seeds."""
    measured, findings = decision.measured, decision.findings
    if not findings.comparisons:
        return []
    number, cost = measured.arms.index(arm), measured.seconds.mean(axis=1)
    columns = [measured.metrics.index(metric) for metric in goals(measured)]
    return [
        name
        for other, name in enumerate(measured.arms)
        if not findings.apart[number, other][columns].any() and cost[other] < cost[number]
    ]


def _next(decision: Decision) -> str:
    stage = decision.next
    if stage is None:
        return "None. Ask again when the threat, the data or the model changes, or a larger trial is worth its cost."
    lines = [
        f"- **Arms**: {', '.join(stage.arms)}; arms without pretext task always go along.",
        f"- **Seeds**: {seeds_in_words(stage, decision.worthwhile, decision.measured.images)}",
    ]
    data = "as many images" if stage.images is None else f"{stage.images:,} images"
    lines += [
        f"- **Training**: on {data}, {stage.epochs} epochs, {in_time(stage.training)}; measuring {in_time(stage.evaluation)}."
    ]
    lines += [f"- **Estimated cost**: {' '.join(costs_in_words(stage, decision.trial.plan))}"]
    trained = {arm: seconds for arm, seconds in stage.per_arm.items() if seconds > 0}
    rows = [[f"{times}×", *(in_time(times * seconds) for seconds in trained.values())] for times in (1, 10, 100)]
    table = markdown_table(["images × epochs", *trained], rows)
    command = f"As a command, with other seeds and what `poc` was given before:\n\n```python\n{next_command(decision, stage)}\n```"
    return "\n".join(lines) + f"\n\n{command}\n\nTraining of one seed, as images and epochs grow:\n\n{table}"


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
