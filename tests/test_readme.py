"""Every block of Python in the README runs alone."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

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
    assert len(shown) == 2
    assert all((ROOT / name).exists() for name in shown)


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    assert len(links) > 5
    assert not [link for link in links if not link.startswith("http") and not (ROOT / link).exists()]
