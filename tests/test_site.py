"""The pages that `make docs` built: they load nothing from elsewhere, no link is broken, and they fit the window.

Nothing is built here. The browser's part runs where Chromium is on the path.
"""

import json
import re
import shutil
import subprocess
import threading
from functools import partial
from html import unescape
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

SITE = Path(__file__).parents[1] / "docs/_build/html"
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking".split()
QUIET += "disable-component-update disable-sync virtual-time-budget=20000 dump-dom".split()
WATCHED = {
    "index.html": ".sd-card",
    "auto_examples/index.html": ".sphx-glr-thumbcontainer img",
    "methods/index.html": ".methods-table a",
    "methods/t-sne.html": "article img",
    "theory.html": "math",
    "coming_from.html": "table",
    "generated/sklearn_icon.ICONEmbedding.html": "dt.sig",
    "search.html?q=perplexity": "#search-results li a",
}
pytestmark = pytest.mark.skipif(not SITE.exists(), reason=f"{SITE} does not exist; `make docs` builds it")


class Page(HTMLParser):
    """What a page loads, where it leads and what can be linked to in it."""

    def __init__(self, path):
        super().__init__()
        self.loads, self.leads, self.anchors = [], [], set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag in ("script", "img", "iframe", "source", "video"):
            self.loads += [given["src"]] if "src" in given else []
        elif tag == "link" and given.get("rel") != "canonical":
            self.loads += [given["href"]]
        elif tag == "a" and given.get("href"):
            self.leads.append(given["href"])
        self.loads += re.findall(r"url\(([^)]*)\)", given.get("style") or "")


@pytest.fixture(scope="module")
def pages():
    return {path: Page(path) for path in sorted(SITE.rglob("*.html")) if "_static" not in path.parts}


def test_pages_of_names_lead_on(pages):
    """To the source, to examples that use the name, and to the pages of other projects, found without a network."""
    leads = pages[SITE / "generated/sklearn_icon.ICONEmbedding.html"].leads
    assert any(url.startswith("../_modules/sklearn_icon/") for url in leads)
    assert any(url.startswith("../auto_examples/plot_") for url in leads)
    assert any(
        url.startswith("https://scikit-learn.org/stable/modules/generated/sklearn.manifold.TSNE.") for url in leads
    )


def test_nothing_is_loaded_from_elsewhere(pages):
    assert len(pages) > 80
    foreign = {path.name: url for path, page in pages.items() for url in page.loads if urlsplit(url).netloc}
    assert not foreign
    styles = {
        path: re.findall(r"(?:url\(|@import )['\"]?(https?:)?//", path.read_text()) for path in SITE.rglob("*.css")
    }
    assert len(styles) > 3
    assert not any(styles.values())


def test_no_link_is_broken(pages):
    broken, n_links = [], 0
    for path, page in pages.items():
        for url in page.loads + page.leads:
            parts = urlsplit(url)
            if parts.scheme or parts.netloc:
                continue
            n_links += 1
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            there = pages.get(target)
            if not target.exists() or (there and parts.fragment and unquote(parts.fragment) not in there.anchors):
                broken.append(f"{path.relative_to(SITE)}: {url}")
    assert n_links > 5000
    assert not broken


FRAME = """<!doctype html><iframe id="frame" width="{width}" height="1000" src="/{page}"></iframe><pre id="seen"></pre>
<script>
const frame = document.getElementById("frame");
const look = () => {{
  const page = frame.contentDocument, root = page.documentElement;
  const images = [...page.images].filter(image => image.complete && !image.naturalWidth && image.src);
  document.getElementById("seen").textContent = JSON.stringify({{
    width: root.clientWidth, scroll: root.scrollWidth, title: page.title, empty: images.map(image => image.src),
    found: page.querySelectorAll({selector}).length, text: page.body.innerText.length }});
}};
frame.onload = () => {{ look(); setInterval(look, 300); }};
</script>"""


@pytest.fixture(scope="module")
def server():
    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self):
            if not self.path.startswith("/frame?"):
                return super().do_GET()
            width, page = unquote(self.path[len("/frame?") :]).split("&", 1)
            body = FRAME.format(width=int(width), page=page, selector=json.dumps(WATCHED[page])).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=SITE)) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium on the path")
@pytest.mark.parametrize("width", [1280, 420])
@pytest.mark.parametrize("page", WATCHED)
def test_pages_open(page, width, server, tmp_path):
    url = f"{server}/frame?{width}&{page.replace('?', '%3F').replace('=', '%3D')}"
    command = [BROWSER, *(f"--{flag}" for flag in QUIET), f"--user-data-dir={tmp_path}", "--window-size=1400,1200", url]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    seen = json.loads(unescape(re.search(r'<pre id="seen">(.*?)</pre>', shown, re.S).group(1)))
    assert seen["found"] > 0
    assert seen["text"] > 200
    assert not seen["empty"]
    assert width - 20 <= seen["width"] <= width
    assert seen["scroll"] <= seen["width"], "wider than the window"
