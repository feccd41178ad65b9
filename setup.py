"""The description for package indexes: links are absolute, pictures those of the version; see RELEASING.md."""

import re
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent


def description() -> str:
    """Pictures and links by addresses of the version's tag."""
    source = re.search(r'^Source = "(.*)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)[1]
    versions = (ROOT / "sklearn_icon/_core/versions.py").read_text(encoding="utf-8")
    tag = "v" + re.search(r'^__version__ = "(.*)"', versions, re.M)[1]
    raw = source.replace("//github.com/", "//raw.githubusercontent.com/")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = text.replace(f"{raw}/main/", f"{raw}/{tag}/")
    return re.sub(r"\]\((?!https://)", f"]({source}/blob/{tag}/", text)


if __name__ == "__main__":
    setup(long_description=description(), long_description_content_type="text/markdown")
