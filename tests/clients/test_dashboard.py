"""docs/grafana.json asks for figures that /metrics has."""
import json
import pathlib
import re
import subprocess

import pytest
from serve_support import PUNA, ask, serving
from test_experts import packed  # noqa: F401 (a fixture)

DASHBOARD = pathlib.Path(__file__).resolve().parents[2] / "docs" / "grafana.json"


@pytest.fixture(scope="module")
def figures(packed):  # noqa: F811
    refused = subprocess.run([PUNA, "serve", "--model", packed, "--port", "0", "--threads", "1", "--memory", "1MiB"], capture_output=True, text=True)
    with serving(packed, "--memory", re.search(r"the least that works is --memory (\d+MiB)", refused.stderr)[1]) as (url, _):
        assert ask(url + "/v1/completions", {"prompt": "Puna", "max_tokens": 5, "ignore_eos": True})[0] == 200
        return ask(url + "/metrics")[2]


def test_every_figure_of_the_dashboard_is_there(figures):
    dashboard = json.loads(DASHBOARD.read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    wanted = set(re.findall(r"puna_\w+", " ".join(expressions)))
    assert len(wanted) > 15
    there = set(re.findall(r"^(puna_\w+)", figures, re.M))
    assert wanted <= there, wanted - there
    for labels in ("status", "le", "pool", "layer", "expert"):
        assert re.search(rf'^puna_\w+{{[^}}]*{labels}="', figures, re.M)
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_the_rows_of_the_experts_are_those_of_the_tokens(figures):
    rows = {}
    for layer, expert, count in re.findall(r'^puna_expert_rows_total{(?=[^}]*layer="(\d+)")(?=[^}]*expert="(\d+)")[^}]*} (\S+)', figures, re.M):
        rows.setdefault(layer, []).append(float(count))
    assert len(rows) == 3 and all(len(layer) == 4 for layer in rows.values())
    assert len({sum(layer) for layer in rows.values()}) == 1 and sum(rows["1"]) > 5
