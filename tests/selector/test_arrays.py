import numpy as np
import pytest

from dsel.clusterer import kmeans, silhouette
from dsel.selector import deita, facility_location, kcenter, qdit

RNG = np.random.default_rng(0)
X = RNG.standard_normal((40, 6)).astype(np.float32)
Q = RNG.random(40)

COSINE = {
    "deita": lambda x: deita.filter_ranked(x, Q, 5),
    "qdit": lambda x: qdit.greedy(x, Q, 5),
    "facility_location": lambda x: facility_location.greedy(x, 5),
    "spherical k-means": lambda x: kmeans.fit(x, 4, spherical=True),
}
EUCLIDEAN = {
    "kcenter": lambda x: kcenter.farthest_first(x, 5),
    "deita l2": lambda x: deita.filter_ranked(x, Q, 5, metric="l2"),
    "k-means": lambda x: kmeans.fit(x, 4),
    "silhouette": lambda x: silhouette.silhouette(x, np.arange(40) % 3),
    "simplified silhouette": lambda x: silhouette.simplified(x, np.arange(40) % 3, X[:3]),
}


@pytest.mark.parametrize("function", [*COSINE.values(), *EUCLIDEAN.values()], ids=[*COSINE, *EUCLIDEAN])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_named(function, value):
    x = X.copy()
    x[3, 0] = x[17, 5] = value
    with pytest.raises(ValueError, match=r"2 of 40 .* rows 3, 17"):
        function(x)


@pytest.mark.parametrize("function", COSINE.values(), ids=COSINE)
def test_zero_rows_are_named_where_a_cosine_is_needed(function):
    x = X.copy()
    x[[0, 2, 4, 6, 8, 39]] = 0
    with pytest.raises(ValueError, match=r"6 of 40 .* zero .* rows 0, 2, 4, 6, 8, …"):
        function(x)


@pytest.mark.parametrize("function", EUCLIDEAN.values(), ids=EUCLIDEAN)
def test_zero_rows_are_points_like_any_other_to_euclid(function):
    x = X.copy()
    x[7] = 0
    function(x)


@pytest.mark.parametrize("function", [*COSINE.values(), *EUCLIDEAN.values()], ids=[*COSINE, *EUCLIDEAN])
def test_inputs_are_left_alone(function):
    x = X.copy()
    function(x)
    np.testing.assert_array_equal(x, X)


@pytest.mark.parametrize("budget", [0, -1, 41])
@pytest.mark.parametrize(
    "function",
    [
        lambda b: deita.filter_ranked(X, Q, b),
        lambda b: qdit.greedy(X, Q, b),
        lambda b: facility_location.greedy(X, b),
        lambda b: kcenter.farthest_first(X, b),
    ],
    ids=["deita", "qdit", "facility_location", "kcenter"],
)
def test_impossible_budgets_are_refused(function, budget):
    with pytest.raises(ValueError, match="budget must be between 1 and the 40"):
        function(budget)


@pytest.mark.parametrize("function", [deita.filter_ranked, qdit.greedy], ids=["deita", "qdit"])
def test_quality_is_checked(function):
    q = Q.copy()
    q[11] = np.nan
    with pytest.raises(ValueError, match="quality .* rows 11"):
        function(X, q, 5)
    with pytest.raises(ValueError, match="one score for each of 40"):
        function(X, Q[:-1], 5)


def test_anything_but_a_matrix_is_refused():
    for shape in [(40,), (0, 6), (40, 0), (2, 20, 6)]:
        with pytest.raises(ValueError, match="matrix"):
            facility_location.greedy(np.ones(shape), 1)
