"""Metadata of a model card, as the Hugging Face Hub reads it: the model index with clean and robust accuracy."""

import re
from collections.abc import Mapping

from huggingface_hub import EvalResult, ModelCardData

from robusttune.measuring.agreement import whose
from robusttune.measuring.attacked import Adversary, attacks_in, clean_of, judged_at, worst_of
from robusttune.measuring.record import Record
from robusttune.measuring.records import Records
from robusttune.run.settings import as_written
from robusttune.sharing.config import architecture_of
from robusttune.sharing.story import Story, plain_name

TASK = "image-classification"
TAGS = ("adversarial-robustness", "robusttune")
UNKNOWN = "not known"
UNITS = "pixel values on [0, 1], where 1 is the way from black to white"
DIGITS = 6  # of a share


def metadata_of_card(story: Story) -> ModelCardData:
    """Return the metadata of a card; without accuracies where nothing was measured, and without a licence where none is named."""
    timm = architecture_of(story.about) is not None
    data = ModelCardData(
        model_name=story.name,
        library_name="timm" if timm else "robusttune",
        pipeline_tag=TASK,
        license=story.license,
        tags=[TASK, *(["timm"] if timm else []), *TAGS],
        eval_results=None if story.records is None else results_of(story.records) or None,
    )
    return data


def adversary_of(records: Records) -> Adversary | None:
    """Return the adversary at which a card states robust accuracy; None if no attack was measured."""
    judged = judged_at({"the model": records})
    return None if judged is None else judged.adversary


def results_of(records: Records) -> list[EvalResult]:
    """Return clean accuracy, and accuracy under the worst of all attacks at the training radius, as entries of a model index.

    The interval, the number of images and all that the number depends on stand in the arguments of the metric.
    """
    clean, adversary = clean_of(records), adversary_of(records)
    results = [] if clean is None else [_result(records, clean, "clean", {})]
    attacks = [each for each in attacks_in(records) if adversary is not None and adversary.fits(each)]
    worst = worst_of(attacks)
    if worst is not None and adversary is not None:
        settings = [{"evaluation": each.evaluation, **_plain(each.setting)} for each in attacks]
        threat = {"norm": adversary.norm, "eps": as_written(adversary.eps), "eps_unit": UNITS}
        beside = {**threat, "attacks": settings, "worst_of_attacks": len(attacks)}
        results.append(_result(records, worst, f"robust ({adversary})", beside))
    return results


def _result(records: Records, record: Record, name: str, setting: Mapping[str, object]) -> EvalResult:
    """Return one entry; agreement with another model's answers is no accuracy, and is not called so."""
    notes = records.facts.get("notes") or {}
    data = plain_name(str(notes.get("data") or records.facts.get("data set") or UNKNOWN))
    split = notes.get("split") or records.facts.get("split")
    answers = whose(records.facts)
    arguments = {
        "images": record.images,
        "interval_95": [round(bound, DIGITS) for bound in record.interval],
        **({} if answers is None else {"labels": answers}),
        **setting,
    }
    return EvalResult(
        task_type=TASK,
        dataset_type=re.sub(r"[^\w/.-]+", "-", data).strip("-") or UNKNOWN,
        dataset_name=data,
        dataset_split=None if split is None else str(split),
        metric_type=record.metric.replace(" ", "_"),
        metric_value=round(record.value, DIGITS),
        metric_name=f"{name} {record.metric}",
        metric_args=arguments,
    )


def _plain(setting: Mapping[str, object]) -> dict[str, object]:
    """Return a setting with numbers and words only, radii as people write them."""
    return {
        key: as_written(value)
        if key == "eps" and isinstance(value, float)
        else value
        if isinstance(value, int | float | str)
        else str(value)
        for key, value in setting.items()
        if key != "norm"
    }
