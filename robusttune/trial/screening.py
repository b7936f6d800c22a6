"""The two stages of a trial: a screening of all arms, and a confirmation of those that can still win."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from robusttune.corruptions._benchmark import family_of
from robusttune.norms import canonical
from robusttune.plugins import did_you_mean
from robusttune.run.settings import POSITIVE, in_range
from robusttune.trial.arms._phase import Item, Settings, name_and_settings
from robusttune.trial.decision.criteria import ATTACK, ATTACKS, CLEAN
from robusttune.trial.plan_checks import check_seeds

if TYPE_CHECKING:
    from robusttune.trial.plan import TrialPlan

KEEP, FEWEST, MOST = 3, 2, 4  # arms that train in the second stage, the plain one among them
SEEDS, FIRST_SEED = 2, 100
SHORTER = 3  # the screening takes a third of the trial's epochs and held-out images
SAME = 1e-6  # relative difference of radii
MOST_LOOKS, FIRST_LOOK = 4, 3  # the fewest seeds by which scatter can be estimated


@dataclass(frozen=True)
class Screening:
    """The first stage of a trial.

    Attributes:
        seeds: the seeds of its trainings; none of them is used again.
        epochs: the number of epochs of adversarial training; the other arms take as many passes through the model.
        images: held-out images that it measures on; none of them is used again.
        items: the evaluation items that it measures.
        keep: arms that train on in the second stage, the plain one among them.
    """

    seeds: list[int]
    epochs: float
    images: int
    items: list[Item]
    keep: int = KEEP

    @classmethod
    def of(cls, values: object) -> "Screening":
        """Read the plan's entry.

        Raises:
            ValueError: unknown or missing names, or values out of range.
        """
        known = [field.name for field in fields(cls)]
        if not isinstance(values, Mapping) or set(values) - set(known):
            unknown = [name for name in values if name not in known] if isinstance(values, Mapping) else []
            hint = did_you_mean(str(unknown[0]), known) if unknown else ""
            raise ValueError(
                f"screening is {values!r}{hint}, but {{name: value}} is needed, out of {', '.join(known)}, or null for none"
            )
        missing = [name for name in known if values.get(name) is None and name != "keep"]
        if missing:
            raise ValueError(f"screening lacks {', '.join(missing)}: add them, or set screening to null for none")
        result = cls(**values)
        check_seeds(result.seeds, "seeds of the screening")
        if not isinstance(result.items, list):
            raise ValueError(f"items of the screening are {result.items!r}, but a list of evaluations is needed")
        if type(result.keep) is not int or not FEWEST <= result.keep <= MOST:
            raise ValueError(f"screening keeps {result.keep!r} arms, but {FEWEST} to {MOST} are needed")
        for name, value in (("epochs", result.epochs), ("images", result.images)):
            if not in_range(value, POSITIVE) or (name == "images" and type(value) is not int):
                raise ValueError(
                    f"{name} of the screening is {value!r}, but a {'whole ' * (name == 'images')}number above 0 is needed"
                )
        return result

    def as_dict(self) -> Settings:
        """Return the plan's entry."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def screening_of(plan: "TrialPlan") -> "TrialPlan | None":
    """Return the plan of the first stage alone; None if the plan has one stage."""
    if plan.screening is None:
        return None
    first = Screening.of(plan.screening)
    evaluation = replace(plan.evaluation, images=first.images, items=first.items, more=[])
    return replace(plan, seeds=first.seeds, epochs=first.epochs, evaluation=evaluation, screening=None, looks=None)


def looks_for(seeds: int) -> list[int]:
    """Return the numbers of seeds after which a trial is looked at: at most four, from three seeds on, evenly apart.

    Example:
        >>> looks_for(8), looks_for(4), looks_for(2)
        ([3, 5, 6, 8], [3, 4], [2])
    """
    if seeds <= FIRST_LOOK:
        return [seeds]
    count = min(MOST_LOOKS, seeds - FIRST_LOOK + 1)
    step = (seeds - FIRST_LOOK) / (count - 1)
    return [round(FIRST_LOOK + number * step) for number in range(count)]


def fresh_seeds(count: int, used: Sequence[int]) -> list[int]:
    """Return seeds for the screening that the second stage does not use.

    Example:
        >>> fresh_seeds(2, [0, 100])
        [101, 102]
    """
    first = max([FIRST_SEED - 1, *(seed for seed in used if seed >= FIRST_SEED)]) + 1
    return list(range(first, first + count))


def check_stages(plan: "TrialPlan") -> None:
    """Check what the plan says of its stages.

    Raises:
        ValueError: a screening or looks that do not fit.
    """
    if plan.looks is not None and not plan.needs:
        raise ValueError("needs are missing beside looks: name what the trial must answer, such as [attack]")
    if plan.screening is not None:
        again = sorted(set(Screening.of(plan.screening).seeds) & set(plan.seeds))
        if again:
            raise ValueError(
                f"the seeds {', '.join(map(str, again))} are of the screening, too, but an arm that it chose must be confirmed "
                "with other seeds: change them"
            )
        if plan.looks is None:
            raise ValueError(
                f"looks are missing beside screening: pass numbers of seeds, such as {looks_for(len(plan.seeds))}"
            )
        check_measured(plan.needs or [], Screening.of(plan.screening).items, plan.threats or {}, "the screening")
    looks = plan.looks
    if looks is None:
        return
    check_measured(plan.needs or [], plan.evaluation.items, plan.threats or {}, "the evaluation")
    _check_images(plan)
    if "matters" in (plan.decision or {}):
        raise ValueError("decision names what matters, but this trial answers its needs: pass needs= instead")
    whole = isinstance(looks, list) and all(type(look) is int for look in looks)
    if not whole or not 0 < len(looks) <= MOST_LOOKS or sorted(set(looks)) != looks or looks[0] < 1:
        raise ValueError(f"looks are {looks!r}, but one to {MOST_LOOKS} rising numbers of seeds are needed")
    if looks[0] < min(FIRST_LOOK, len(plan.seeds)):
        raise ValueError(
            f"the first look is after {looks[0]} seeds, but {FIRST_LOOK} are needed to see how results scatter"
        )
    if looks[-1] != len(plan.seeds):
        raise ValueError(
            f"the last look is after {looks[-1]} seeds, but there are {len(plan.seeds)}: let it be after all of them, such as "
            f"{looks_for(len(plan.seeds))}"
        )


def _check_images(plan: "TrialPlan") -> None:
    """Raise a ValueError for a plan that measures on more images than there are."""
    there = (plan.data or {}).get("test images")
    first = 0 if plan.screening is None else Screening.of(plan.screening).images
    if there is not None and plan.evaluation.images + first > there:
        beside = f" and {first} for the screening" if first else ""
        raise ValueError(
            f"the plan asks for {plan.evaluation.images} held-out images{beside}, but there are {there}: lower them, or pass a larger "
            "test_loader="
        )


def check_measured(needs: Sequence[str], items: Sequence[Item], threats: Mapping[str, float], where: str) -> None:
    """Raise a ValueError if no evaluation item measures a need, before anything is trained.

    Args:
        needs: the needs of the trial.
        items: the items of the stage.
        threats: radii by norm, the one to train against first.
        where: the stage, in words.
    """
    for need in needs:
        norm = next(iter(threats)) if need == ATTACK else need
        found = any(_measures(need, norm, threats, *name_and_settings(item)) for item in items)
        if not found:
            what = f"attacks of norm {norm} at its radius" if norm in threats else need
            raise ValueError(
                f"the trial must answer {need!r}, but no item of {where} measures {what}: add one to its items, or pass other "
                "needs="
            )


def _measures(need: str, norm: str, threats: Mapping[str, float], item: str, settings: Settings) -> bool:
    """Return True if an evaluation item measures a need."""
    radius, trained = threats.get(norm), norm == next(iter(threats))
    if need == CLEAN:
        return item == "clean"
    if radius is None:
        chosen = settings.get("names")
        return item == "corruptions" and (chosen is None or any(family_of(name) == need for name in chosen))
    if item not in ATTACKS:
        return False
    norms, eps = settings.get("norms", settings.get("norm")), settings.get("eps")
    if norms is None:  # a sweep takes all norms, the other attacks that of the training
        named = item == "sweep" or trained
    else:
        named = norm in map(canonical, [norms] if isinstance(norms, str) else norms)
    usual = [radius] if trained else []  # another norm is attacked at its customary radius
    radii = usual if eps is None else eps if isinstance(eps, list | tuple) else [eps]
    return named and any(abs(each - radius) <= SAME * radius for each in radii)
