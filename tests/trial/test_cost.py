"""Estimated costs of a trial: what is measured once, and what is not taken for something else."""

from small_trials import loader, small

from robusttune.trial.cost import Costs
from robusttune.trial.data import InputSpace, divided
from robusttune.trial.plan import TrialPlan


def test_two_attacks_without_settings_have_each_their_own_upper_bound(tmp_path, monkeypatch):
    seconds = {"clean": 1.0, "sweep": 2.0, "strong": 50.0}
    monkeypatch.setattr(
        Costs, "_evaluated", lambda self, name, settings, threat, model_labels=False: seconds[name] * (1 + model_labels)
    )
    plan = TrialPlan.from_dict(
        {
            "threats": {"linf": 0.1},
            "epochs": 1,
            "seeds": [0],
            "arms": {"adversarial": [{"harden": {"tasks": None}}]},
            "evaluation": {"images": 10, "items": ["clean", "sweep", "strong"]},
        }
    )
    monkeypatch.setattr(Costs, "_phase", lambda *given: (0.0, 0.0))
    costs = Costs(tmp_path, small(), divided(loader(), loader(seed=1)), InputSpace())
    assert costs.of(plan)["adversarial"].measuring == 10 * (1 + 2 * 2 + 2 * 50)
