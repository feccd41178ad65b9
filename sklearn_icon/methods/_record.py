"""`Method`: a cell of the table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sklearn.base import clone

from .. import encoders
from .. import learned as q
from .. import supervisory as p

FAMILIES = ("dimensionality reduction", "contrastive", "supervised", "cross-modal", "language", "clustering")
"""The families of methods."""

COLUMNS = {
    "Gaussian": "Gaussian",
    "StudentT": "Student-t",
    "Identity": "Identity",
    "Graph": "Graph weights",
    "UniformKNN": "Nearest neighbours",
    "FuzzyUnion": "Fuzzy union",
    "PositivePairs": "Positive pairs",
    "CrossModalPairs": "Cross-modal pairs",
    "SameClass": "Same class",
    "DataLabel": "Class labels",
    "BalancedCodes": "Balanced codes",
    "Counts": "Token counts",
}
"""Titles of the table's columns, by the class of p."""

ROWS = {
    "Gaussian": "Gaussian",
    "WideGaussian": "Wide Gaussian",
    "NarrowGaussian": "Narrow Gaussian",
    "StudentT": "Student-t",
    "Rational": "Student-t",
    "NegativeSampling": "Negative sampling",
    "SpectralContrast": "Spectral contrast",
    "NoiseContrastive": "Negative sampling",
    "PairwiseSigmoid": "Negative sampling",
    "Decoupled": "Reweighted keys",
    "HardNegatives": "Reweighted keys",
    "MultiView": "Reweighted keys",
    "HardnessWeighted": "Reweighted keys",
    "Heads": "Gaussian",
    "Harmonic": "Student-t",
    "SharedCluster": "Shared cluster",
    "degree": "Shared cluster, by degree",
}
"""Titles of the table's rows, by the class of q."""

_NARROW = 0.1
_HANDED_ON = ("perplexity", "n_neighbors", "metric", "metric_params")


@dataclass(frozen=True)
class Method:
    """A cell of the table: what to choose, in which estimator, and what that equals.

    ::

        L = mean_i D( p(.|i) || q(.|i) ),     p = supervisory, q = learned, D = divergence

    Made by `get`; the specs are copies, so that no change to them reaches the table.

    Parameters
    ----------
    name : str
        The canonical name.
    title : str
        The name in print.
    family : str
        One of `FAMILIES`.
    supervisory, learned, encoder : specs
        p, q, and how rows become representations.
    estimator : str
        The class of `sklearn_icon` that fits it.
    equals : str
        What the method must equal, up to constants where it says so.
    reference : str
        Where it was published, or predicted.
    reads : str, default=""
        What `fit` reads otherwise than features in X.
    divergence : str, default="kl"
        D.
    normalization : {"conditional", "joint"}, default="conditional"
        Of `ICONEmbedding`.
    debias : float, default=0.0
        Uniform mass.
    published : bool, default=True
        False for a combination of specs that no paper has.
    aliases : tuple of str, default=()
        Other names.
    parameters : tuple of (str, value), default=()
        What else the estimator is given.

    Examples
    --------
    >>> from sklearn_icon import methods
    >>> methods.get("t-SNE").learned
    StudentT()
    >>> methods.get("t-SNE").make_estimator(perplexity=10, random_state=0).supervisory
    Gaussian(perplexity=10)
    """

    name: str
    title: str
    family: str
    supervisory: p.Supervisory = field(compare=False)
    learned: q.Learned = field(compare=False)
    encoder: encoders.Encoder = field(compare=False)
    estimator: str
    equals: str
    reference: str
    reads: str = ""
    divergence: str = "kl"
    normalization: str = "conditional"
    debias: float = 0.0
    published: bool = True
    aliases: tuple = ()
    parameters: tuple = ()

    @property
    def column(self) -> str:
        """Title of the table's column, which p names."""
        return COLUMNS[type(self.supervisory.plain()).__name__]

    @property
    def row(self) -> str:
        """Title of the table's row, which q names; a Gaussian of small fixed width is narrow."""
        spec = self.learned.unmixed()
        if spec.get_params(deep=False).get("sigma", 1.0) <= _NARROW:
            return ROWS["NarrowGaussian"]
        return ROWS["degree" if spec.by_degree else type(spec).__name__]

    def _specs(self) -> dict[str, Any]:
        """Copies of p, q and the encoder, by the estimators' names of these."""
        chosen = {"supervisory": self.supervisory, "learned": self.learned, "encoder": self.encoder}
        return {name: clone(spec) for name, spec in chosen.items()}

    def make_estimator(self, **params: Any) -> Any:
        """Make a fresh, unfitted estimator of the method.

        Parameters
        ----------
        **params
            Parameters of the estimator, which go before those of the record; nested ones
            (`supervisory__perplexity`) change a single parameter of a spec. Those that p alone has, as `affinity` of
            "spectral", are set on it; `perplexity`, `n_neighbors`, `metric` and `metric_params` on both.

        Returns
        -------
        estimator

        Raises
        ------
        ValueError
            A parameter that the estimator, or p, does not have.

        Examples
        --------
        >>> from sklearn_icon import methods
        >>> methods.get("harmonic").make_estimator(tol=1e-6, learned__n=2.0)
        ICONClassifier(encoder=Linear(), learned=Harmonic(n=2.0),
                       supervisory=DataLabel(), tol=1e-06)
        """
        import sklearn_icon  # which imports an estimator where it is asked for

        estimator = getattr(sklearn_icon, self.estimator)()
        own = self._specs() | dict(self.parameters)
        own |= {"divergence": self.divergence, "debias": self.debias}
        own |= {"normalization": self.normalization} if self.estimator == "ICONEmbedding" else {}
        estimator.set_params(**own)
        ours = estimator.get_params(deep=False)
        of_p = {name for name in params if name not in ours and name in self._owner(estimator, name).get_params(False)}
        estimator.set_params(**{name: value for name, value in params.items() if name not in of_p})
        if "supervisory" not in params:
            of_p |= params.keys() & set(_HANDED_ON)
        for name in of_p:
            self._owner(estimator, name).set_params(**{name: params[name]})
        return estimator

    @staticmethod
    def _owner(estimator: Any, parameter: str) -> Any:
        return estimator.supervisory.owner(parameter)
