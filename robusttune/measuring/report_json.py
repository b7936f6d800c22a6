"""The report as JSON: the same verdict, facts and numbers as on the page, under names that stay."""

import json
from collections.abc import Mapping

from robusttune.measuring import headline_words as words
from robusttune.measuring.headline import headlines
from robusttune.measuring.not_measured import not_measured
from robusttune.measuring.records import Records
from robusttune.measuring.setting_words import facts_in_words
from robusttune.types import finite

FORMAT = 1


def report_json(runs: Mapping[str, Records]) -> str:
    """Return the text of `report.json`: "verdicts", "models" with facts and Records, and "not measured".

    Names are as the user wrote them. Each verdict holds its sentence beside its numbers. A number that is NaN or infinite is null.
    """
    facts = facts_in_words(runs)
    content = {
        "format": FORMAT,
        "verdicts": [{"sentence": words.verdict(each), **each.as_json()} for each in headlines(runs)],
        "models": {
            name: {
                "setup": {row[0]: row[column] for row in facts},
                "facts": records.facts,
                "records": records.to_dict(),
            }
            for column, (name, records) in enumerate(runs.items(), 1)
        },
        "not measured": not_measured(runs),
    }
    return json.dumps(finite(content), indent=1, ensure_ascii=False, default=str, allow_nan=False) + "\n"
