"""Signs that measured robustness is false: masked gradients, and models that attacks cannot measure."""

from robusttune.attacks import NoGradientError
from robusttune.evaluations import Passes, Record, Subject, checked_by, takes, wilson
from robusttune.evaluations._sanity_checks import CHECKS, expected
from robusttune.evaluations._sanity_sample import Finding, Sample
from robusttune.run.settings import ATTACK_STEPS, COUNT, check_number

__all__ = ["sanity"]


def _passes(subject: Subject, *, images: int, steps: int) -> Passes:
    return expected(subject.threat, images, steps)


def _check(subject: Subject, *, images: int, steps: int) -> None:
    check_number("images", images, COUNT)
    check_number("steps of sanity", steps, ATTACK_STEPS)


@checked_by(_check)
@takes(_passes)
def sanity(subject: Subject, *, images: int = 200, steps: int = 20) -> list[Record]:
    """Check whether the model's measured robustness can be believed: a Record and a sentence for each of twelve checks.

    A Record's value is the number that the check looks at; its setting says whether the check passed (`ok`) and what the
    number means (`says`). The checks look for signs; if they find none, this proves nothing. A check that needs gradients
    fails, with value 1, on a model that passes none to its images.

    Args:
        subject: the model and its images.
        images: the number of images to use, drawn with the seed from a plain DataLoader, the first ones of other loaders.
        steps: the number of steps of the attacks; some checks take several times as many.

    Raises:
        ValueError: there are no images, or a setting is out of range.

    Source: Carlini et al., arXiv:1902.06705; Athalye et al., arXiv:1802.00420.
    """
    _check(subject, images=images, steps=steps)
    sample = Sample(subject, images, steps)
    count = len(sample.pixels)
    records = []
    for check in CHECKS:
        name = check.__name__.replace("_", " ")
        subject.stage(name)
        try:
            finding = check(sample)
        except NoGradientError:
            finding = Finding(1.0, False, "no gradient reaches the images: this check could not be made")
        share = min(1.0, max(0.0, finding.value))
        setting = {"ok": finding.ok, "says": finding.says}
        records.append(Record("sanity", name, finding.value, count, wilson(share * count, count), setting))
        if not finding.ok:
            subject.tell(f"sanity, {name}: {finding.says}")
    return records
