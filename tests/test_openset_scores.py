"""Unknown scores from outputs and from features, by hand and against scikit-learn and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import mahalanobis as scipy_mahalanobis
from scipy.special import logsumexp, softmax
from sklearn.covariance import EmpiricalCovariance
from sklearn.neighbors import NearestNeighbors

from training.metrics import openset_features as of
from training.metrics import openset_scores as os_

LOGITS = np.array([[2.0, -1.0, 0.0], [-3.0, -3.0, -3.0]])
logit_matrices = arrays(
    np.float64, st.tuples(st.integers(1, 6), st.integers(2, 5)), elements=st.floats(-30, 30)
)


def of_logits(name: str, logits: np.ndarray, task: os_.Task, temperature: float = 1.0):
    outputs = os_.from_logits(logits, task=task, temperature=temperature)
    return os_.unknown_scores(name, outputs)


def test_multilabel_by_hand() -> None:
    p = [1 / (1 + math.exp(-z)) for z in LOGITS[0]]
    assert of_logits("max_probability", LOGITS, "multilabel")[0] == pytest.approx(1 - p[0])
    assert of_logits("max_logit", LOGITS, "multilabel").tolist() == [-2.0, 3.0]
    energy = -sum(math.log(1 + math.exp(z)) for z in LOGITS[0])
    assert of_logits("energy", LOGITS, "multilabel")[0] == pytest.approx(energy)
    entropy = -sum(q * math.log(q) + (1 - q) * math.log(1 - q) for q in p)
    assert of_logits("entropy", LOGITS, "multilabel")[0] == pytest.approx(entropy)
    gen = sum((q * (1 - q)) ** 0.1 for q in p)
    assert of_logits("gen", LOGITS, "multilabel")[0] == pytest.approx(gen)


@given(logit_matrices, st.floats(0.2, 5))
def test_multiclass_equals_scipy(logits: np.ndarray, temperature: float) -> None:
    p = softmax(logits / temperature, axis=1)
    said = {name: of_logits(name, logits, "multiclass", temperature) for name in os_.OUTPUT_SCORES}
    np.testing.assert_allclose(said["max_probability"], 1 - p.max(axis=1), atol=1e-12)
    np.testing.assert_allclose(
        said["energy"], -temperature * logsumexp(logits / temperature, axis=1), atol=1e-9
    )
    log_p = logits / temperature - logsumexp(logits / temperature, axis=1, keepdims=True)
    np.testing.assert_allclose(said["entropy"], -(p * log_p).sum(axis=1), atol=1e-9)
    # log(1 - p) without cancellation: the log of the sum of the others.
    log_rest = np.stack(
        [logsumexp(np.delete(log_p, column, axis=1), axis=1) for column in range(logits.shape[1])],
        axis=1,
    )
    np.testing.assert_allclose(said["gen"], np.exp(0.1 * (log_p + log_rest)).sum(axis=1), rtol=1e-6)


def test_the_sure_are_told_apart() -> None:
    # 1 - p would be 0 for both.
    for task in ("multilabel", "multiclass"):
        said = of_logits("max_probability", np.array([[40.0, 0.0], [50.0, 0.0]]), task)
        assert 0.0 < said[1] < said[0] < 1e-16


@given(logit_matrices, st.integers(0, 2**32 - 1))
def test_the_order_of_the_classes_does_not_matter(logits: np.ndarray, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(logits.shape[1])
    for task in ("multilabel", "multiclass"):
        for name in os_.OUTPUT_SCORES:
            np.testing.assert_allclose(
                of_logits(name, logits[:, order], task), of_logits(name, logits, task), atol=1e-9
            )


@given(logit_matrices, st.floats(-5, 5))
def test_a_softmax_does_not_see_a_constant_but_energy_does(logits: np.ndarray, c: float) -> None:
    for name in ("max_probability", "entropy"):
        np.testing.assert_allclose(
            of_logits(name, logits + c, "multiclass"),
            of_logits(name, logits, "multiclass"),
            atol=1e-9,
        )
    np.testing.assert_allclose(
        of_logits("energy", logits + c, "multiclass"),
        of_logits("energy", logits, "multiclass") - c,
        atol=1e-9,
    )


def test_probabilities_give_the_logits_back() -> None:
    p = 1 / (1 + np.exp(-LOGITS))
    for name in os_.OUTPUT_SCORES:
        outputs = os_.from_probabilities(p, task="multilabel")
        np.testing.assert_allclose(
            os_.unknown_scores(name, outputs), of_logits(name, LOGITS, "multilabel"), atol=1e-9
        )
    certain = os_.from_probabilities(np.array([[0.0, 1.0]]), task="multilabel")
    for name in os_.OUTPUT_SCORES:
        assert np.isfinite(os_.unknown_scores(name, certain)).all()


def test_gen_looks_at_the_largest_only() -> None:
    outputs = os_.from_probabilities(np.array([[0.7, 0.2, 0.1]]), task="multiclass")
    said = os_.unknown_scores("gen", outputs, gamma=0.5, top=2)
    assert said[0] == pytest.approx(math.sqrt(0.21) + math.sqrt(0.16))


def test_what_cannot_be_had_is_refused() -> None:
    softmaxed = os_.from_probabilities(np.array([[0.7, 0.3]]), task="multiclass")
    for name in ("energy", "max_logit"):
        with pytest.raises(ValueError, match="needs logits"):
            os_.unknown_scores(name, softmaxed)
    with pytest.raises(ValueError, match="there are max_probability"):
        os_.unknown_scores("msp", softmaxed)
    with pytest.raises(ValueError, match="shape"):
        os_.from_logits(np.empty((3, 0)), task="multilabel")
    with pytest.raises(ValueError, match="temperature"):
        os_.from_logits(LOGITS, task="multilabel", temperature=0.0)
    assert os_.from_logits(np.empty((0, 2)), task="multilabel").probabilities.shape == (0, 2)


@pytest.fixture(scope="module")
def training() -> tuple[np.ndarray, np.ndarray]:
    """300 clips of three label sets in 8 dimensions, one clip in ten without a label."""
    rng = np.random.default_rng(3)
    which = rng.integers(3, size=300)
    features = rng.normal(size=(300, 8)) @ rng.normal(size=(8, 8)) + 3.0 * np.eye(8)[which]
    targets = np.eye(3, dtype=bool)[which]
    targets[::10] = False
    return features, targets


def test_mahalanobis_equals_scikit_learn(training: tuple[np.ndarray, np.ndarray]) -> None:
    features, targets = training
    fitted = of.fit_gaussian(features, targets)
    kept = targets.any(axis=1)
    x, which = features[kept], targets[kept].argmax(axis=1)
    means = np.stack([x[which == k].mean(axis=0) for k in range(3)])
    within = EmpiricalCovariance(assume_centered=True).fit(x - means[which])
    asked = np.random.default_rng(4).normal(size=(20, 8)) * 3
    nearest = np.min([within.mahalanobis(asked - mean) for mean in means], axis=0)
    np.testing.assert_allclose(of.mahalanobis(asked, fitted), nearest, rtol=1e-9)
    around = EmpiricalCovariance().fit(x)
    np.testing.assert_allclose(
        of.relative_mahalanobis(asked, fitted), nearest - around.mahalanobis(asked), rtol=1e-9
    )
    one = min(scipy_mahalanobis(asked[0], mean, within.precision_) ** 2 for mean in means)
    assert of.mahalanobis(asked[:1], fitted)[0] == pytest.approx(one)


def test_mahalanobis_by_hand() -> None:
    # Two sets at ±10 along x, spread 1 in x and 2 in y: squared distances are x² and y² / 4.
    corners = np.array([[1.0, 2.0], [1.0, -2.0], [-1.0, 2.0], [-1.0, -2.0]])
    features = np.concatenate([corners + np.array([10, 0]), corners - np.array([10, 0])])
    targets = np.repeat([[True, False], [False, True]], 4, axis=0)
    fitted = of.fit_gaussian(features, targets)
    said = of.mahalanobis(np.array([[10.0, 0.0], [13.0, 0.0], [-10.0, 4.0]]), fitted)
    np.testing.assert_allclose(said, [0.0, 9.0, 4.0], atol=1e-12)


def test_saved_statistics_score_as_predict_does() -> None:
    from training.model.inference import OpenSet

    rng = np.random.default_rng(5)
    root = rng.normal(size=(4, 4))
    arrays_ = {
        "means": rng.normal(size=(3, 4)),
        "precision": root @ root.T,
        "centre": rng.normal(size=4),
        "background": np.eye(4) * 0.5,
    }
    asked = rng.normal(size=(7, 4))
    model = OpenSet(**{name: torch.from_numpy(value) for name, value in arrays_.items()})
    np.testing.assert_allclose(
        of.relative_mahalanobis(asked, of.Gaussian(**arrays_)),
        model.score(torch.from_numpy(asked)).numpy(),
        rtol=1e-9,
    )


@pytest.mark.parametrize("neighbours", [1, 5, 300])
def test_knn_equals_scikit_learn(
    training: tuple[np.ndarray, np.ndarray], neighbours: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of, "_CELLS_PER_BLOCK", 900)  # three rows a block
    features, _ = training
    asked = np.random.default_rng(6).normal(size=(25, 8)) + 1.0
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    oracle = NearestNeighbors(n_neighbors=neighbours).fit(unit)
    distance, _ = oracle.kneighbors(asked / np.linalg.norm(asked, axis=1, keepdims=True))
    np.testing.assert_allclose(
        of.nearest_neighbour(asked, features, neighbours), distance[:, -1], atol=1e-7
    )


def test_knn_by_hand() -> None:
    bank = np.array([[1.0, 0.0], [0.0, 5.0]])
    said = of.nearest_neighbour(np.array([[3.0, 0.0], [-1.0, 0.0]]), bank, 1)
    np.testing.assert_allclose(said, [0.0, math.sqrt(2.0)], atol=1e-12)
    for k in (0, 3):
        with pytest.raises(ValueError, match="neighbours must lie in 1 to 2"):
            of.nearest_neighbour(bank, bank, k)
    assert of.nearest_neighbour(np.empty((0, 2)), bank, 1).shape == (0,)


def test_vim_as_its_authors_compute_it(training: tuple[np.ndarray, np.ndarray]) -> None:
    features, _ = training
    rng = np.random.default_rng(7)
    w, b = rng.normal(size=(3, 8)), rng.normal(size=3)
    asked = rng.normal(size=(12, 8)) * 4
    # The steps of the published script, with its names.
    u = -np.matmul(np.linalg.pinv(w), b)
    ec = EmpiricalCovariance(assume_centered=True).fit(features - u)
    eig_vals, eigen_vectors = np.linalg.eig(ec.covariance_)
    ns = np.ascontiguousarray((eigen_vectors.T[np.argsort(eig_vals * -1)[4:]]).T)
    vlogit_train = np.linalg.norm(np.matmul(features - u, ns), axis=-1)
    alpha = (features @ w.T + b).max(axis=-1).mean() / vlogit_train.mean()
    vlogit = np.linalg.norm(np.matmul(asked - u, ns), axis=-1) * alpha
    score_known = -vlogit + logsumexp(asked @ w.T + b, axis=-1)
    fitted = of.fit_vim(features, w, b, task="multiclass")
    np.testing.assert_allclose(of.vim(asked, fitted), -score_known, rtol=1e-8)


def test_features_that_cannot_be_fitted_are_refused() -> None:
    x = np.ones((4, 2))
    with pytest.raises(ValueError, match="no training clip has a label"):
        of.fit_gaussian(x, np.zeros((4, 3), dtype=bool))
    with pytest.raises(ValueError, match="one row a feature vector"):
        of.fit_gaussian(x, np.ones((3, 3), dtype=bool))
    with pytest.raises(ValueError, match="do not fit"):
        of.fit_vim(x, np.ones((3, 5)), np.ones(3), task="multilabel")
    with pytest.raises(ValueError, match="wholly in the principal space"):
        of.fit_vim(x, np.eye(2), np.zeros(2), task="multilabel")
    spread = np.random.default_rng(0).normal(size=(50, 2))
    with pytest.raises(ValueError, match="not above 0"):
        of.fit_vim(spread, np.eye(2) * 0.1, np.full(2, -9.0), task="multilabel")


@given(st.integers(0, 2**32 - 1))
def test_turning_the_feature_space_changes_no_distance(seed: int) -> None:
    rng = np.random.default_rng(seed)
    features, asked = rng.normal(size=(40, 4)) * [1, 2, 3, 4], rng.normal(size=(5, 4))
    targets = np.eye(2, dtype=bool)[rng.integers(2, size=40)]
    turn, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    np.testing.assert_allclose(
        of.relative_mahalanobis(asked @ turn, of.fit_gaussian(features @ turn, targets)),
        of.relative_mahalanobis(asked, of.fit_gaussian(features, targets)),
        rtol=1e-6,
        atol=1e-8,
    )
    np.testing.assert_allclose(
        of.nearest_neighbour(asked @ turn, features @ turn, 3),
        of.nearest_neighbour(asked, features, 3),
        atol=1e-7,
    )


def test_unknown_scores_of_the_model_are_those_of_float64() -> None:
    """They are small differences of large distances, as a few clips a class give them."""
    from training.model.inference import OpenSet

    rng = np.random.default_rng(6)
    root = rng.normal(size=(32, 32)) * np.geomspace(1.0, 100.0, 32)
    exact = {
        "means": rng.normal(size=(5, 32)).astype(np.float32),
        "precision": (root @ root.T).astype(np.float32),
        "centre": rng.normal(size=32).astype(np.float32),
        "background": (root @ root.T + np.eye(32)).astype(np.float32),
    }
    asked = rng.normal(size=(9, 32)).astype(np.float32)
    model = OpenSet(**{name: torch.from_numpy(value) for name, value in exact.items()})
    wide = of.Gaussian(**{name: value.astype(np.float64) for name, value in exact.items()})
    said = model.score(torch.from_numpy(asked))
    assert said.dtype == torch.float32
    np.testing.assert_allclose(
        said.numpy(), of.relative_mahalanobis(asked.astype(np.float64), wide), rtol=1e-6
    )
