"""Every block of Python in the README runs alone."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sklearn_icon import methods

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_blocks_run_alone(block, tmp_path):
    assert "import" in block
    search = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": search}
    subprocess.run([sys.executable, "-W", "error", "-c", block], check=True, cwd=tmp_path, env=environment)


def test_its_picture_is_there_for_light_and_dark_pages():
    shown = re.findall(r'src(?:set)?="([^"]+)"', (ROOT / "README.md").read_text())
    source = re.search(r'^Source = "https://github.com/(.*)"', (ROOT / "pyproject.toml").read_text(), re.M)[1]
    raw = f"https://raw.githubusercontent.com/{source}/main/"
    assert len(shown) == 2 and all(address.startswith(raw) for address in shown)
    assert all((ROOT / address.removeprefix(raw)).is_file() for address in shown)


def test_figures_are_those_that_were_measured():
    text = (ROOT / "README.md").read_text()
    results = ROOT / "benchmarks/results"
    maps = json.loads((results / "maps_70k_0_2.json").read_text())["figures"]
    assert f"**{maps['icon']['median cold']:.1f} s** on two cores" in text
    assert f"**{maps['icon']['recall@10']:.0%}**".replace("%", " %") in text
    assert (
        f"(PaCMAP {maps['pacmap']['median cold']:.1f} s, {maps['pacmap']['recall@10']:.0%}".replace("%", " %") in text
    )
    panel = json.loads((results / "clustering_panel.json").read_text())["ARI"]
    of_kmeans = [row for row in panel.values() if "kmeans" in row]
    mean = {name: np.mean([row[name][0] for row in panel.values()]) for name in ("icon", "spectral")}
    assert f"clusters of {len(panel)} unlike data sets at an adjusted Rand index of **{mean['icon']:.2f}**" in text
    told = re.sub(r"\s+", " ", text)
    kmeans = np.mean([row["kmeans"][0] for row in of_kmeans])
    assert f"`SpectralClustering` {mean['spectral']:.2f}; `KMeans` {kmeans:.2f} on the {len(of_kmeans)} with" in told
    worst = max(row["regret"] for row in panel.values())
    assert f"none more than {worst:.3f} below" in told
    found = {row["how"]: row for row in json.loads((results / "discovery.json").read_text())["figures"][:3]}
    assert found["ours"]["data"] == "digits"
    assert f"**{np.mean(found['ours']['all']):.2f}** of the unlabelled digits" in text
    assert f"(k-means with the labels held {np.mean(found['constrained']['all']):.2f})" in text
    assert "over fifty methods" in text and len(methods.names()) > 50
    assert "seventeen are hatched" in text and len(methods.names(published=False)) == 17


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    assert len(links) > 5
    assert not [link for link in links if not link.startswith("http") and not (ROOT / link).exists()]
