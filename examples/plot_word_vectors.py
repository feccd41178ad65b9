r"""
Word vectors from docstrings
============================

Skip-gram, masked and next-token prediction are one cell of the table: an item is a *context*, its keys are *tokens*,

.. math::

   p(t \mid i) = \frac{n_{it}}{\sum_u n_{iu}}, \qquad
   q(t \mid i) = \frac{e^{z_i \cdot w_t}}{\sum_u e^{z_i \cdot w_u}},

where :math:`n_{it}` counts how often token :math:`t` was seen in context :math:`i`. The loss is the cross-entropy of
the counts, less the entropy of :math:`p`. Here a context is "near the word :math:`i`": both :math:`z_i` and
:math:`w_t` are then vectors of words.
"""

# %%
# The text is on every machine that runs this page: the docstrings of scikit-learn. What is pasted into many of them
# would count again and again, so each paragraph is taken once.

import ast
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import sklearn
from matplotlib.patheffects import withStroke
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer

from sklearn_icon import ICONEmbedding, learned


def paragraphs(package):
    """Each paragraph of the docstrings of a package's files, tests aside."""
    files = [file for file in sorted(Path(package.__file__).parent.rglob("*.py")) if "tests" not in file.parts]
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docstrings = [ast.get_docstring(node) or "" for node in nodes if isinstance(node, documented)]
    return list(dict.fromkeys(part for docstring in docstrings for part in docstring.split("\n\n")))


texts = paragraphs(sklearn)
vectorizer = CountVectorizer(max_features=800, stop_words="english", token_pattern=r"[a-zA-Z]{3,}")
frequencies = np.asarray(vectorizer.fit_transform(texts).sum(axis=0)).ravel()
words = vectorizer.get_feature_names_out()
print(f"{len(texts)} paragraphs, {frequencies.sum()} of their words among the {len(words)} most frequent")

# %%
# Two words meet where no more than four others stand between them, stop words not counted.

analyze = vectorizer.build_analyzer()
texts = [np.array([vectorizer.vocabulary_.get(word, -1) for word in analyze(text)], dtype=int) for text in texts]
pairs = [np.stack([text[:-gap], text[gap:]]) for text in texts for gap in range(1, 6)]
left, right = (pair := np.concatenate(pairs, axis=1))[:, (pair >= 0).all(axis=0)]
counts = sparse.csr_array((np.ones(len(left)), (left, right)), shape=(len(words), len(words)))
counts = sparse.csr_array(counts + counts.T)
print(f"{int(counts.sum())} meetings of {counts.nnz} pairs, {counts.nnz / len(words) ** 2:.0%} of all there could be")

# %%
# The keys are tokens, not the rows, so every row has a normaliser of its own. ``embedding_`` holds the vectors of the
# contexts, ``prototypes_`` those of the tokens.

model = ICONEmbedding(
    20,
    supervisory="counts",
    learned=learned.Gaussian(metric="dot"),
    normalization="conditional",
    max_iter=150,
    random_state=0,
).fit(counts)
fractions = frequencies / frequencies.sum()
present = counts.tocoo()
of_p = np.log(present.data / counts.sum(axis=1)[present.row])
of_frequencies = present.data @ (of_p - np.log(fractions[present.col])) / counts.sum()
print(f"KL {model.kl_divergence_:.3f}; of a model that knows the words' frequencies alone {of_frequencies:.3f}")

# %%
# Dot products say nothing of a shift of all tokens, and the strongest direction among those that they do tell is how
# frequent a word is. It is left out before words are compared by their cosines.

centred = model.prototypes_ - model.prototypes_.mean(axis=0)
directions = np.linalg.svd(centred, full_matrices=False)
print(f"correlation with log frequency: {abs(np.corrcoef(directions[0][:, 0], np.log(frequencies))[0, 1]):.2f}")
vectors = (directions[0] * directions[1])[:, 1:]
vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
row_of = {word: row for row, word in enumerate(words)}
for word in ["cluster", "ridge", "tree", "kernel", "probability", "sparse", "image", "eigenvalues"]:
    if word in row_of:  # another version of the text may lack it
        nearest = np.argsort(-vectors @ vectors[row_of[word]])[1:7]
        print(f"{word:12s}", ", ".join(words[nearest]))

# %%
# What the words share is mostly a subject: "tree" has forests and boosting beside it, "sparse" the formats of matrices.
# Much of it is where words stand rather than what they mean, as with "cluster" and the algorithms named in one
# breath with it. And 170,000 words are little text: a word that has been seen some dozen times, such as "eigenvalues",
# gets the phrases it happened to stand in.
#
# A map of the vectors, t-SNE on their cosines, shows the subjects. The groups of coloured words were chosen by hand,
# before the map was drawn; the grey points are all other words, and names that would cover others are left out.

groups = {
    "clusters": "cluster clusters clustering kmeans dbscan optics linkage centroids hierarchical reachability",
    "trees": "tree trees forest leaf depth split node splits boosting ensemble",
    "linear models": "ridge lasso logistic linear regression coefficients intercept penalty elasticnet regularization",
    "matrices": "sparse dense csr csc matrix array shape dtype ndarray format",
    "scores": "precision recall accuracy roc auc score curve metrics brier average",
    "drawing": "plot matplotlib axes figure color colors label grid bar axis",
}
plane = ICONEmbedding(metric="cosine", perplexity=15, random_state=0).fit_transform(vectors)
fig, ax = plt.subplots(figsize=(9, 8), layout="constrained")
ax.scatter(*plane.T, s=4, color="0.8")
written = np.empty((0, 2))
spacing = np.ptp(plane, axis=0) * [0.07, 0.016]
for number, (name, members) in enumerate(groups.items()):
    found = [row_of[word] for word in members.split() if word in row_of]
    ax.scatter(*plane[found].T, s=16, color=f"C{number}", label=name)
    for row in found:
        if not (abs(written - plane[row]) < spacing).all(axis=1).any():
            text = ax.annotate(
                words[row], plane[row], (6, 3), textcoords="offset points", fontsize=8, color=f"C{number}"
            )
            text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])  # to be read above points
            written = np.vstack([written, plane[row]])
ax.legend(loc="best", fontsize=8)
ax.set(title="Words of scikit-learn's docstrings", xticks=[], yticks=[])
plt.show()

# %%
# Words about clusters, scores and formats of matrices lie together. Linear models fall into the models and their
# penalties, trees into ensembles, nodes and splits: both are how the words are used. The words of drawing do not hold
# together at all; the text speaks little of it.
