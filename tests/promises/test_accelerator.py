import torch
import robusttune
from pretend_device import Waits
from short_runs import a_loader, a_model
import short_runs

def test_it(accelerator, capsys):
    model = a_model()
    with Waits() as w:
        robusttune.harden(model, a_loader(), norm="l2", epochs=1, steps=2, progress=False)
    from collections import Counter
    for k, v in Counter(w.noted).most_common(): print(v, k)
    with Waits() as w:
        r = robusttune.evaluate(model, a_loader(), progress=False)
    print(r)
    for k, v in Counter(w.noted).most_common(): print(v, k)
