"""The search over the table: rounds and what they cost, what is kept, what is reported, and the score of clusters."""

from itertools import pairwise

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import make_blobs

from sklearn_icon import ICONClustering, methods
from sklearn_icon.methods import _search
from sklearn_icon.methods._search import _Candidate, _Data, _recall_among_fitted, _rounds, _shared_information

X, Y = make_blobs([30, 24, 18], n_features=4, cluster_std=0.5, random_state=3)
FEW = {"max_iter": 8, "random_state": 0}


@pytest.fixture
def cells(monkeypatch):
    """Fewer cells."""

    def keep(*names):
        monkeypatch.setattr(_search, "_CELLS", tuple(map(methods.get, names)))

    return keep


def columns(found, *titles):
    return list(zip(*(found.ranking_[title].tolist() for title in titles), strict=True))


@pytest.mark.parametrize("n_candidates, n, cv, budget", [(16, 1800, 5, 60), (7, 90, 2, 12), (20, 10_000, 3, 25.5)])
def test_rounds_keep_within_the_budget(n_candidates, n, cv, budget):
    def cost(rounds):
        trained, count = n + 2 * (cv - 1) * n, n_candidates
        for rows in rounds:
            trained += count * (cv - 1) * rows
            count = -(-count // 3)
        return trained / n

    rounds = _rounds(n_candidates, n, cv, budget)
    assert rounds[-1] == n
    assert all(rows == 3 * before or rows == n for before, rows in pairwise(rounds))
    assert budget / 2 < cost(rounds) <= budget
    assert _rounds(n_candidates, n, cv, 10 * budget) == [n]
    with pytest.raises(ValueError, match=r"budget=2 fits of .* rows are too few for .* set it to \d+ or more"):
        _rounds(n_candidates, n, cv, 2)


def test_the_first_round_without_a_budget():
    assert _rounds(12, 1000, 5, None) == [250, 750, 1000]
    assert _rounds(12, 200, 5, None) == [100, 200]
    assert _rounds(12, 60, 5, None) == [60]


def test_clusters_repeat_and_are_of_all_rows(cells):
    cells("k-means", "spectral", "ncut", "supervised-clustering")
    found, again = (methods.search(X, n_clusters=3, cv=3, **FEW) for _ in range(2))
    assert set(found.ranking_["name"]) == {"default of ICONClustering", "k-means", "spectral"}
    titles = ["name", "parameters", "score", "spread", "rows", "dropped"]
    assert columns(found, *titles) == columns(again, *titles)
    best = found.best_estimator_
    np.testing.assert_array_equal(clone(best).fit(X).labels_, best.labels_)
    assert len(best.labels_) == len(X)
    assert set(found.ranking_["rows"]) == {len(X)}


def test_the_default_stays_unless_it_is_beaten(cells):
    cells("t-sne", "pca", "sne")

    for of_pca, name in ((0.5, "t-sne"), (0.6, "pca")):
        scores = {"WideGaussian()": of_pca, "StudentT()": 0.5}

        def by_kernel(estimator, X, y=None, scores=scores):
            return scores.get(repr(estimator.learned), 0.4)

        found = methods.search(X, scoring=by_kernel, cv=2, n_components=1, **FEW)
        assert columns(found, "name", "dropped")[0] == (name, "")
        assert found.best_estimator_.embedding_.shape == (len(X), 1)
        assert all(found.ranking_["dropped"][1:])


def test_a_candidate_beats_by_more_than_a_standard_error():
    one, other = (_Candidate(name, None, {}, {}) for name in "ab")
    other.scores = np.array([0.1, 0.5, 0.3])
    for more, beats in (([0.1, 0.1, 0.1], True), ([0.3, 0.1, 0.0], False), ([0.3, 0.2, 0.0], True)):
        assert (np.mean(more) > np.std(more, ddof=1) * np.sqrt(1 / 3 + 1 / 2)) == beats
        one.scores = other.scores + more
        assert one.beats(other) == beats
    one.scores, none = np.array([np.nan]), _Candidate("c", None, {}, {})
    assert other.beats(none)
    assert not one.beats(other)
    assert not one.beats(none)


def test_luck_on_the_folds_that_rank_is_not_enough(cells):
    cells("t-sne", "pca", "sne")
    held_out = {}

    def by_luck(estimator, X, y=None):
        name = type(estimator.learned).__name__
        folds = held_out.setdefault(name, [])
        folds.append(X)
        return {"WideGaussian": 0.9 if len(folds) <= 2 else 0.1, "StudentT": 0.5}.get(name, 0.4)

    found = methods.search(X, scoring=by_luck, cv=2, n_components=1, **FEW)
    lines = {
        name: (score, why) for name, p, score, why in columns(found, "name", "parameters", "score", "dropped") if not p
    }
    assert lines == {
        "t-sne": (0.5, ""),
        "sne": (0.4, "others were better"),
        "pca": (0.1, "no better than the default by a standard error"),
    }
    assert found.ranking_["name"][0] == "t-sne"
    pca = held_out["WideGaussian"]
    assert len(pca) == 4
    assert not any(np.array_equal(np.sort(ranked, 0), np.sort(anew, 0)) for ranked in pca[:2] for anew in pca[2:])


def test_halving_drops_two_thirds(cells):
    cells("t-sne", "sne", "pca", "neg-t-sne")
    rows = np.random.default_rng(0).normal(size=(200, 3))
    found = methods.search(rows, cv=2, budget=9, max_iter=5, random_state=1)
    lines = columns(found, "rows", "score", "name", "dropped")
    early = [line for line in lines if line[0] < 200]
    assert len(early) >= len(lines) / 2
    assert {line[3] for line in early} <= {"others were better"} | {d for _, s, _, d in early if np.isnan(s)}
    assert ("t-sne", 200) in columns(found, "name", "rows")


def test_failures_are_told(cells):
    cells("t-sne", "pca")
    found = methods.search(X, cv=2, **FEW)
    failed = {p: why for p, why in columns(found, "parameters", "dropped") if "Error" in why}
    assert list(failed) == ["perplexity=100"]
    assert "set perplexity to at most" in failed["perplexity=100"]
    assert "ValueError: perplexity" in repr(found)
    with pytest.raises(ValueError, match="all candidates failed, the first of 2 as ValueError: Invalid parameter 'C'"):
        methods.search(X, cv=2, C=1.0, perplexity=5, learned__df=1.0)


def test_classes_and_pairs(cells):
    cells("cross-entropy", "harmonic", "clip", "cmc")
    found = methods.search(X, Y.astype(str), cv=3, **FEW)
    assert found.best_estimator_.score(X, Y.astype(str)) > 0.9
    assert "C=10.0" in found.ranking_["parameters"]
    assert set(methods.search(X, Y, cv=3, C=3.0, **FEW).ranking_["parameters"]) == {"", "encoder='mlp'"}
    pairs = methods.search(X[:, :2], X[:, 2:], cv=2, learned__tau=0.3, **FEW)
    assert sorted(pairs.ranking_["name"]) == ["clip", "cmc"]


def test_clusters_may_be_scored_by_classes(cells):
    cells("k-means")
    found = methods.search(X, Y, family="clustering", scoring="adjusted_rand_score", n_clusters=3, cv=2, **FEW)
    assert found.ranking_["score"].max() == 1


@pytest.mark.parametrize(
    "given, message",
    [
        ({"family": "maps"}, "family='maps' is not searched; use one of"),
        ({"family": "supervised"}, "family='supervised' reads y, which is None; pass class labels as y"),
        ({"family": "cross-modal"}, "pass the same rows in the other modality as y"),
        ({"budget": 0}, "'budget' parameter of search must be"),
        ({"cv": 1}, "'cv' parameter of search must be"),
        ({"scoring": 3}, "'scoring' parameter of search must be"),
        ({"n_clusters": 3, "metric": "precomputed"}, "has no distances between held-out rows"),
        ({"y": [0, 1]}, "inconsistent numbers of samples"),
    ],
    ids=lambda given: next(iter(given)) if isinstance(given, dict) else "",
)
def test_bad_input(given, message):
    with pytest.raises(ValueError, match=message):
        methods.search(X, **given)


def test_beginnings_hold_the_classes_in_proportion():
    y = np.repeat([5, 1, 9], [40, 20, 10])
    order = _Data(np.zeros((70, 1)), y, True, 2, None).order(4)
    assert sorted(order) == list(range(70))
    for size in (7, 21, 35):
        counts = np.array([(y[order[:size]] == label).sum() for label in (5, 1, 9)])
        np.testing.assert_allclose(counts, size * np.array([4, 2, 1]) / 7, atol=1)


def test_score_of_clusters_as_naive_sums():
    fitted = ICONClustering(3, supervisory="knn", max_iter=20, random_state=0).fit(X)
    held_out = X + np.random.RandomState(0).normal(size=X.shape)
    labels, p = fitted.predict(held_out), ICONClustering(3)._local(held_out, 3).base.conditional(held_out).toarray()
    joint = np.zeros((3, 3))
    for i in range(len(X)):
        for j in range(len(X)):
            joint[labels[i], labels[j]] += (p[i, j] + p[j, i]) / 2 / len(X)
    expected = sum(
        joint[c, d] * np.log(joint[c, d] / (joint[c].sum() * joint[:, d].sum()))
        for c in range(3)
        for d in range(3)
        if joint[c, d]
    )
    assert expected > 0.1
    assert _shared_information(fitted, held_out) == pytest.approx(expected, abs=1e-10)


def test_score_of_maps_as_naive_sums():
    fitted = methods.get("pca").make_estimator(n_components=1).fit(X[:40])
    expected = []
    for row, placed in zip(X[40:], fitted.transform(X[40:]), strict=True):
        near = np.argsort(np.linalg.norm(X[:40] - row, axis=1))[:10]
        found = np.argsort(np.linalg.norm(fitted.embedding_ - placed, axis=1))[:10]
        expected.append(len(set(near) & set(found)) / 10)
    assert 0.3 < np.mean(expected) < 1
    assert _recall_among_fitted(fitted, X[40:], rows=X[:40]) == pytest.approx(np.mean(expected), abs=1e-12)


def test_maps_of_distances(cells):
    cells("t-sne", "t-sne-uniform")
    found = methods.search(np.linalg.norm(X[:, None] - X, axis=2), metric="precomputed", cv=2, init="random", **FEW)
    assert found.best_estimator_.embedding_.shape == (len(X), 2)


def test_tables_of_the_result(cells):
    cells("cross-entropy")
    found = methods.search(X, Y, cv=2)
    text, page = repr(found), found._repr_html_()
    assert text.splitlines()[0].startswith("Search: ICONClassifier(")
    assert len(text.splitlines()) >= 2 + len(found.ranking_["name"])
    assert page.count("<tr>") == 1 + len(found.ranking_["name"])
    odd = methods.Search(None, {"name": np.array(["<b>"]), "score": np.array([0.5]), "dropped": np.array(["a\nb"])})
    assert "&lt;b&gt;" in odd._repr_html_()
    assert "a b" in repr(odd)


def test_a_metric_may_be_any_function():
    rows = make_blobs(60, 3, centers=2, random_state=0)[0]
    found = methods.search(rows, n_clusters=2, metric=lambda a, b: np.abs(a - b).sum(), cv=2, random_state=0)
    assert np.isfinite(found.ranking_["score"]).any()
    assert not any("pickle" in why.lower() for why in found.ranking_["dropped"])


def test_failures_on_folds_drawn_anew_are_told(cells):
    cells("t-sne", "pca")
    calls, most = [], np.inf

    def scored(estimator, X, y=None):
        calls.append(X)
        if len(calls) > most:
            raise RuntimeError("no score")
        return float(type(estimator.learned).__name__ == "WideGaussian")

    how = {"scoring": scored, "cv": 2, "n_components": 1} | FEW
    methods.search(X, **how)
    most = len(calls) - 4  # two folds of two candidates come last
    calls.clear()
    with pytest.raises(ValueError, match="failed on other folds, the default as RuntimeError: no score"):
        methods.search(X, **how)
