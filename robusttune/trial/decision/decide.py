"""What a trial says to do next: which arm serves which need, and whether that is more than chance."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from robusttune.measuring.html import page
from robusttune.trial.decision.criteria import criteria
from robusttune.trial.decision.findings import Findings, findings
from robusttune.trial.decision.metrics import Measured, measured
from robusttune.trial.decision.next_stage import Stage, chosen_seeds, stage
from robusttune.trial.decision.page import markdown
from robusttune.trial.decision.significance import FEWEST_SEEDS, pair_scatter
from robusttune.trial.decision.verdict import Decision, Verdict, baselines, judged
from robusttune.trial.results import Trial

AGAIN = 2  # arms beside the baselines that the next stage repeats


def decide(
    trial: Trial,
    *,
    worthwhile: float | None = None,
    clean_loss: float | None = None,
    matters: str | Sequence[str] | None = None,
    images: int | None = None,
    epochs: float | None = None,
) -> Decision:
    """What a trial comes to: go on with some arms, do nothing, or not enough data to tell.

    Whether an arm is better is told from its accuracies with each seed, beside those of two baselines with the same
    seeds: doing nothing, and adversarial training without pretext task. All comparisons are corrected together.

    What else is asked for is what the plan's `decision` says, and what is given here comes before it.

    Args:
        trial: its plan and results, as `Trial.load(folder)` reads them; arms and seeds that have not ended are left out.
        worthwhile: the smallest gain of accuracy that is worth the trouble, a share; 0.02 unless anything is said.
        clean_loss: the largest loss of clean accuracy that is accepted, a share; any unless anything is said.
        matters: for what a gain counts: "attack", "corruption", "clean"; the first two unless anything is said.
        images, epochs: of training in the next stage, for its cost; those of the trial unless anything is said.

    Raises:
        ValueError: settings out of range; fewer than two arms with a seed in common; arms measured on other images.
        ImportError: scipy is not installed.

    Source: Student's t over seeds with Holm's correction; see `differences`.
    """
    given = {"worthwhile": worthwhile, "clean_loss": clean_loss, "matters": matters, "images": images, "epochs": epochs}
    wanted = criteria({**(trial.plan.decision or {}), **{k: v for k, v in given.items() if v is not None}})
    seen = measured(trial)
    found = findings(seen, baselines(trial, seen))
    asked: dict[str, Any] = {"worthwhile": wanted.worthwhile, "clean_loss": wanted.clean_loss}
    verdict, reason, candidates = judged(trial, seen, found, matters=wanted.matters, **asked)
    decision = Decision(verdict, reason, candidates, trial, seen, found, **asked)
    return replace(decision, next=_next(decision, wanted.images, wanted.epochs))


def write(decision: Decision, folder: str | Path) -> Path:
    """The path of a decision as people read it: `decision.md` with its pictures beside it, and `decision.html`, one file.

    Args:
        decision: what `decide` returned.
        folder: made where it does not exist.

    Raises:
        ImportError: matplotlib or markdown is not installed.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    text = markdown(decision, place)
    html = page(text, place, title="Decision report")
    path = place / "decision.md"
    path.write_text(text, encoding="utf-8")
    (place / "decision.html").write_text(html, encoding="utf-8")
    return path


def _next(decision: Decision, images: int | None, epochs: float | None) -> Stage | None:
    """What to run next; nothing where that is to do nothing."""
    if decision.verdict is Verdict.DO_NOTHING:
        return None
    seen, plan = decision.measured, decision.trial.plan
    first = [each for each in (decision.nothing, decision.plain) if each is not None]
    others = [arm for arm in decision.candidates if arm not in first]
    # Too few seeds are no reason to drop an arm.
    again = others if len(seen.seeds) < FEWEST_SEEDS else others[:AGAIN]
    arms = [arm for arm in seen.arms if arm in first or arm in again]
    variance, of_images = _scatter(seen, decision.findings)
    trained = sum(arm != decision.nothing for arm in arms)
    comparisons = max(1, len(seen.needs) * (2 * trained - 1))
    reach = chosen_seeds(variance, of_images, decision.worthwhile, comparisons=comparisons, arms=trained)
    seconds = dict(zip(seen.arms, seen.seconds.mean(axis=1).tolist(), strict=True))
    spent = [each.records.facts.get("evaluations", {}) for each in decision.trial.results]
    measuring = float(np.mean([sum(cost.get("seconds", 0.0) for cost in each.values()) for each in spent]))
    return stage(arms, reach, seconds=seconds, evaluation=measuring, plan=plan, images=images, epochs=epochs)


def _scatter(seen: Measured, found: Findings) -> tuple[float | None, float]:
    """The variance of a difference of two arms from seed to seed, and the part from the images, for the main need.

    That is the attack that arms train against, at the radius; else the one that scatters most.
    """
    trained = [arm for arm in range(len(seen.arms)) if arm not in seen.untrained]
    main = [n for n, need in enumerate(seen.needs) if need.trained and need.place == "at"] or list(
        range(len(seen.needs))
    )
    of_images = float(found.images_part[main].max() ** 2)
    if len(seen.seeds) < 2 or len(trained) < 2:
        return None, of_images
    return float(pair_scatter(seen.values[trained])[main].max()), of_images
