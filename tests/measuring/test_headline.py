"""The headline of a report: the same attacks on the same images, and sentences that say what is not known."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import robusttune
from robusttune.measuring.headline import headlines
from robusttune.measuring.headline_words import basis, certainty, expectation, strength, verdict
from robusttune.measuring.record import accuracy
from robusttune.measuring.records import Records
from robusttune.measuring.sections.verdict import verdict as verdict_section

FACTS = {"norm": "linf", "eps": "8/255", "eps from": "passed"}


def measured(clean, robust, *, count=20, attacks=("apgd",), facts=FACTS, images=None):
    """Records of a model that is right on the first `clean` images, and on the first `robust` under every attack."""
    rows = [accuracy("clean", clean, count, right=[row < clean for row in range(count)])]
    for attack in attacks:
        setting = {"norm": "linf", "eps": 8 / 255, "attack": attack, "steps": 50, "seed": 0}
        rows.append(accuracy("sweep", robust, count, setting, right=[row < robust for row in range(count)]))
    hashes = [f"image {row}" for row in range(count)] if images is None else images
    return Records(rows, facts=facts, hashes=hashes, labels=[0] * len(hashes))


def test_the_first_line_says_before_after_price_certainty_and_attack(tmp_path):
    runs = {"before": measured(19, 1), "after": measured(17, 15)}
    page = robusttune.report(runs, tmp_path, sections=["verdict"])
    first = page.read_text(encoding="utf-8").split("## Verdict\n\n")[1].splitlines()[0]
    for text in (
        "Under attack (linf up to 8/255), “after” is right on 75.0% of images, and “before” on 5.0%: 70.0 points more (95% interval",
        "On unchanged images, “after” is right on 85.0% of images, and “before” on 95.0%: 10.0 points less (95% interval",
        "The difference under attack is larger than chance explains (p < 0.001), that on unchanged images may be chance (p = 0.5).",
        "Measured on 20 images, attacked by `sweep` (apgd, steps 50, seed 0).",
    ):
        assert text in first


def test_a_report_says_that_the_epoch_was_chosen_by_the_images_measured(tmp_path):
    run = {"function": "harden", "data": "images", "val_split": "val", "arguments": {"epochs": 1}}
    said = "“after”: Its training run chose its epoch by the images measured, so its accuracy on new ones may be a little lower."
    for split, expected in (("val", True), ("test", False)):
        facts = FACTS | {"run": run, "model": "ResNet 12", "notes": {"data": "images", "split": split}}
        runs = {"before": measured(19, 1), "after": measured(17, 15, facts=facts)}
        text = verdict_section(runs, tmp_path)
        assert (said in text) == expected
        assert "trained by harden, 1 epoch;" in text


def test_two_teachers_are_the_reason_for_no_paired_test():
    runs = {}
    for label, name in enumerate("ab"):
        records = measured(15, 10, facts=FACTS | {"agreement": {"name": f"runs/{name}", "fingerprint": name}})
        runs[name] = Records(records, facts=records.facts, hashes=records.hashes, labels=[label] * 20)
    (headline,) = headlines(runs)
    said = certainty(headline)
    assert (
        "with other answers, “a” with the answers of runs/a (a) and “b” with the answers of runs/b (b), and these differ"
        in said
    )
    assert said.endswith("Pass the same teacher= to both evaluations.")


def test_a_difference_whose_interval_holds_0_may_be_chance():
    rows = {"before": 10, "after": 16}  # 6 images in one direction: McNemar's p is 0.03
    (headline,) = headlines({name: measured(right, right, count=20) for name, right in rows.items()})
    assert "are larger than chance explains" in basis(headline)
    wide = replace(headline, robust=replace(headline.robust, test=replace(headline.robust.test, only_first=6)))
    assert "under attack may be chance (p" in basis(wide)


def test_only_attacks_that_both_models_met_are_compared():
    both, alone = measured(19, 10), measured(19, 12, attacks=("apgd", "weaker"))
    (headline,) = headlines({"a": both, "b": alone})
    assert headline.same
    assert headline.attacks == ("`sweep` (apgd, steps 50, seed 0)",)
    (headline,) = headlines({"a": both, "b": measured(19, 12, attacks=("weaker",))})
    assert not headline.same
    assert "“a” met other attacks, so the two numbers cannot be compared" in strength(headline)


def test_models_are_compared_by_as_many_seeds_of_an_attack():
    repeated = measured(19, 10)
    extra = replace(repeated[1], value=0.05, right=(True,) + (False,) * 19, setting={**repeated[1].setting, "seed": 1})
    more = Records([*repeated, extra], facts=repeated.facts, hashes=repeated.hashes, labels=repeated.labels)
    (alone,) = headlines({"a": more})
    assert alone.robust.second.value == 0.05
    for runs in ({"a": more, "b": measured(19, 10)}, {"a": measured(19, 10), "b": more}):
        (headline,) = headlines(runs)
        assert headline.robust.difference == 0.0


def test_the_expected_robustness_of_two_models_is_by_the_attacks_that_both_met():
    second, weaker = measured(20, 12), measured(20, 12, attacks=("apgd", "stronger"))
    weaker[2] = replace(weaker[2], value=0.2, right=(True,) * 4 + (False,) * 16)  # which the second did not meet
    (alone,) = headlines({"a": weaker})
    assert alone.expected["a"].value == pytest.approx(0.6)
    for runs in ({"a": weaker, "b": second}, {"b": second, "a": weaker}):
        (headline,) = headlines(runs)
        assert [record.value for record in headline.expected.values()] == pytest.approx([0.8, 0.8])
    (other,) = headlines({"a": measured(20, 18), "b": measured(20, 2, attacks=("apgd, 500 steps",))})
    assert [other.expected[name].value for name in "ab"] == pytest.approx([0.95, 0.55])


def test_no_difference_is_stated_of_models_that_met_other_attacks():
    (headline,) = headlines({"a": measured(19, 18), "b": measured(19, 1, attacks=("apgd, 500 steps",))})
    under_attack = verdict(headline).split(". On unchanged images")[0]
    assert under_attack.endswith(
        "“b” is right on 5.0% of images, and “a” on 90.0% under other attacks, with which this cannot be compared"
    )
    assert basis(headline).startswith("The difference on unchanged images may be chance (p = 1).")
    found = headline.as_json()
    assert found["under attack"] | {"first": 0, "second": 0} == {
        **dict.fromkeys(("first", "second"), 0),
        **dict.fromkeys(("difference", "interval", "p", "images in common")),
    }
    assert found["unchanged images"]["difference"] == 0.0


def test_what_is_not_known_is_said():
    (headline,) = headlines(
        {"a": measured(19, 10), "b": measured(19, 12, images=[f"other {row}" for row in range(20)])}
    )
    assert headline.robust.test is None
    assert "no paired test" in certainty(headline)
    assert "(95% interval" not in verdict(headline)
    assert "difference" not in basis(headline)
    (headline,) = headlines({"a": Records(measured(19, 10)[:1]), "b": measured(19, 12)})
    assert "“a” was not measured." in verdict(headline)
    (headline,) = headlines({"a": Records(measured(19, 10)[:1])})
    assert verdict(headline).endswith(
        "Accuracy under attack was not measured by `sweep`, `strong` or `autoattack`, on which a verdict rests."
    )
    (headline,) = headlines({"a": Records(measured(19, 10)[1:])})
    assert expectation(headline).startswith("Not known: it needs attacks (`sweep`) at linf up to 8/255 and `clean`")


def test_models_that_were_measured_with_other_labels_are_refused(tmp_path):
    first, second = measured(19, 1), measured(17, 15)
    moved = Records(second, facts=second.facts, hashes=second.hashes, labels=[1] * 20)
    with pytest.raises(ValueError, match="the two have other labels for the same images"):
        robusttune.report({"before": first, "after": moved}, tmp_path)
    elsewhere = Records(second, facts=second.facts, hashes=[f"other {row}" for row in range(20)], labels=[1] * 20)
    (headline,) = headlines({"before": first, "after": elsewhere})
    assert headline.robust.test is None


def test_every_model_is_compared_with_the_first():
    runs = {"a": measured(19, 1), "b": measured(17, 15), "c": measured(18, 9)}
    assert [(each.first, each.second) for each in headlines(runs)] == [("a", "b"), ("a", "c")]


def test_no_difference_is_called_so():
    (headline,) = headlines({"a": measured(19, 10), "b": measured(19, 10)})
    assert "no difference" in verdict(headline)
    assert basis(headline).startswith("Both differences may be chance (under attack p = 1, on unchanged images p = 1).")


def test_the_json_holds_what_the_page_says(tmp_path):
    name = "<script>a</script>"
    runs = {name: measured(19, 1), "b": measured(17, 15)}
    robusttune.report(runs, tmp_path, sections=["verdict"])
    content = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    (found,) = content["verdicts"]
    assert list(content["models"]) == [name, "b"]
    assert found["sentence"] == verdict(headlines(runs)[0])
    assert found["eps"] == 8 / 255
    assert found["under attack"]["first"]["value"] == 0.05
    assert found["under attack"]["difference"] == pytest.approx(0.7)
    low, high = found["under attack"]["interval"]
    assert 0 < low < 0.7 < high < 1
    assert found["expected robustness"]["b"]["value"] == pytest.approx((0.85 + 0.75) / 2)
    assert content["models"]["b"]["records"] == runs["b"].to_dict()
    assert content["models"]["b"]["setup"]["model"] == "not known"
    assert any("norm l2" in each for each in content["not measured"])


def test_the_class_that_a_model_loses_most_is_named():
    worst = accuracy("clean", 1, 28, {"class": 1}, metric="worst-class accuracy")
    records = Records([accuracy("clean", 80, 100), worst], facts={"classes": ["coat", "shirt"]})
    text = verdict_section({"after": records}, Path())
    assert (
        "- **Worst class**: Right least often on unchanged images: “after” 3.6% of the 28 images of “shirt” (0.6 to 17.7)."
        in text
    )
    assert "Worst class" not in verdict_section({"after": Records(records[:1])}, Path())


def test_numbers_of_other_images_than_those_in_common_are_not_beside_their_difference():
    hashes = [[str(row) for row in range(100)], [str(row) for row in range(50, 150)]]
    before = Records([accuracy("clean", 90, 100, right=[True] * 90 + [False] * 10)], hashes=hashes[0], labels=[0] * 100)
    after = Records([accuracy("clean", 60, 100, right=[False] * 40 + [True] * 60)], hashes=hashes[1], labels=[0] * 100)
    text = verdict_section({"before": before, "after": after}, Path())
    assert "“after” is right on 20.0% of images, and “before” on 80.0%: 60.0 points less" in text
    assert "Measured on 50 images" in text
