"""The estimators pass scikit-learn's own checks, all of them, and train as the framework does."""

import doctest
import pickle
import sys
import warnings

import numpy as np
import pytest

import tinygrad_opt as tg

pytest.importorskip("sklearn")

from sklearn.base import clone  # noqa: E402
from sklearn.exceptions import ConvergenceWarning  # noqa: E402
from sklearn.model_selection import GridSearchCV, cross_val_score  # noqa: E402
from sklearn.neural_network import MLPClassifier as Sklearns  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402

from tinygrad_opt.sklearn import MLPClassifier, MLPRegressor  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
X, Y = (t.numpy() for t in tg.data.moons(120, noise=0.15, generator=0))
LINE = np.linspace(-2, 2, 80)[:, None]
WAVES = np.hstack([np.sin(2 * LINE), LINE ** 2])


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks([MLPClassifier(), MLPRegressor(),
                          MLPClassifier((), optimizer="sgd", optimizer_options={"momentum": 0.9},
                                        learning_rate_init=0.1, max_iter=20)])
def test_scikit_learn_s_own_checks(estimator, check):
    check(estimator)


def test_docstrings():
    assert doctest.testmod(sys.modules[MLPClassifier.__module__]).failed == 0


def test_as_good_as_scikit_learn_s_own_on_digits():
    train, test = tg.data.digits()
    (images, labels), (unseen, truth) = ([t.numpy() for t in part.tensors] for part in (train, test))
    scores = [kind(random_state=0, max_iter=60, learning_rate_init=3e-3).fit(images, labels).score(unseen, truth)
              for kind in (MLPClassifier, Sklearns)]
    assert abs(scores[0] - scores[1]) < 0.02 and scores[0] > 0.95


def same(a, b):
    return all(np.array_equal(p.numpy(), q.numpy()) for p, q in zip(a.model_.parameters(), b.model_.parameters()))


# ---- what is trained ----------------------------------------------------------------------------------------------


def test_a_fit_is_a_loop_by_hand():
    fitted = MLPClassifier((6,), "tanh", optimizer="adam", alpha=0.01, learning_rate_init=0.02, random_state=5,
                           batch_size=50, max_iter=3).fit(X, Y)
    generator = tg.Generator(np.random.RandomState(5).randint(2 ** 31 - 1))
    model = tg.nn.Sequential(tg.nn.Linear(2, 6, generator=generator), tg.nn.Tanh(),
                             tg.nn.Linear(6, 2, generator=generator))
    optimizer = tg.optim.Adam(tg.optim.decay_groups(model, 0.01), lr=0.02)
    loader = tg.data.DataLoader(tg.data.TensorDataset(X, Y), 50, shuffle=True, generator=generator)
    for _ in range(3):
        losses = []
        for x, y in loader:
            optimizer.zero_grad()
            loss = tg.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item() * len(y) / 120)
    assert all(np.array_equal(p.numpy(), q.numpy()) for p, q in zip(fitted.model_.parameters(), model.parameters()))
    assert fitted.loss_curve_[-1] == pytest.approx(sum(losses)) and fitted.n_iter_ == 3 == len(fitted.loss_curve_)
    logits = X @ fitted.coefs_[0] + fitted.intercepts_[0]
    logits = np.tanh(logits) @ fitted.coefs_[1] + fitted.intercepts_[1]
    assert np.array_equal(fitted.predict(X), logits.argmax(1))
    assert np.allclose(fitted.predict_proba(X), np.exp(fitted.predict_log_proba(X)))


def test_random_state_is_all_that_decides():
    before = tg.random.default_generator().get_state(), np.random.get_state()[1].tolist()
    for optimizer in ("adamw", "adahessian", "sophiah", "kfac"):
        a, b, c = (MLPClassifier((4,), optimizer=optimizer, max_iter=3, random_state=k).fit(X, Y) for k in (1, 1, 2))
        assert same(a, b) and not same(a, c)
    assert before == (tg.random.default_generator().get_state(), np.random.get_state()[1].tolist())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtypes_are_kept(dtype):
    for estimator in (MLPClassifier((4,), max_iter=2), MLPRegressor((4,), max_iter=2)):
        fitted = estimator.fit(X.astype(dtype), Y.astype("float64"))
        assert {p.dtype for p in fitted.model_.parameters()} == {tg.tensor(0, dtype=dtype).dtype}
        answer = fitted.predict_proba(X.astype("float64")) if hasattr(fitted, "predict_proba") else fitted.predict(X)
        assert answer.dtype == dtype


@pytest.mark.parametrize("name", sorted(set(tg.optim.list_optimizers()) - {"GaussNewton", "NewtonCG", "TrustRegion"}))
def test_every_optimizer_trains(name):
    rate = {"LARS": 0.1, "SGD": 0.05, "ASGD": 0.05, "QHM": 0.05}.get(name)
    settings = dict(optimizer=name, random_state=0, max_iter=8, learning_rate_init=rate, batch_size=20, tol=0)
    fitted = MLPClassifier((6,), **settings).fit(X, Y)
    assert min(fitted.loss_curve_[1:]) < fitted.loss_curve_[0]
    fitted = MLPRegressor((6,), "tanh", **settings).fit(LINE, WAVES)
    assert fitted.predict(LINE).shape == (80, 2) and min(fitted.loss_curve_[1:]) <= fitted.loss_curve_[0]


def test_alpha_is_felt_with_or_without_weight_decay():
    for optimizer in ("adamw", "rprop", "lbfgs", "muon"):
        sizes = [sum(float((w ** 2).sum()) for w in MLPClassifier(
            (6, 6), optimizer=optimizer, alpha=alpha, random_state=0, max_iter=30).fit(X, Y).coefs_)
            for alpha in (0.0, 1.0)]
        assert sizes[1] < sizes[0], optimizer


def test_sample_weights():
    weight = np.random.default_rng(0).integers(0, 3, 120)
    settings = dict(hidden_layer_sizes=(4,), max_iter=5, random_state=0, batch_size=1000, learning_rate_init=0.1)
    weighed = MLPClassifier(**settings).fit(X, Y, weight)
    repeated = MLPClassifier(**settings).fit(X.repeat(weight, axis=0), Y.repeat(weight))
    assert np.allclose(weighed.predict_proba(X), repeated.predict_proba(X), atol=1e-5)
    plain = MLPClassifier(**settings).fit(X, Y)
    assert not np.allclose(weighed.predict_proba(X), plain.predict_proba(X), atol=1e-4)
    with pytest.raises(ValueError, match="zero"):
        MLPRegressor().fit(X, Y, np.zeros(120))


# ---- how long -----------------------------------------------------------------------------------------------------


def test_it_stops_when_it_gets_no_better():
    fitted = MLPClassifier((8,), optimizer="lbfgs", random_state=0, tol=1e-3, n_iter_no_change=2).fit(X, Y)
    assert fitted.n_iter_ < 200 and fitted.best_loss_ == min(fitted.loss_curve_)
    with pytest.warns(ConvergenceWarning, match="3 epochs of max_iter"):
        MLPClassifier((8,), max_iter=3).fit(X, Y)


def test_early_stopping_keeps_the_best():
    fitted = MLPClassifier((8,), learning_rate_init=0.05, early_stopping=True, validation_fraction=0.3, random_state=0,
                           batch_size=10).fit(X, Y)
    scores = fitted.validation_scores_
    assert fitted.best_validation_score_ == max(scores) and len(scores) == fitted.n_iter_ < 200
    until = MLPClassifier((8,), learning_rate_init=0.05, early_stopping=True, validation_fraction=0.3, random_state=0,
                          batch_size=10, max_iter=1 + scores.index(max(scores))).fit(X, Y)
    assert same(fitted, until)


def test_going_on():
    whole = MLPClassifier((4,), random_state=0, max_iter=6).fit(X, Y)
    warm = MLPClassifier((4,), random_state=0, max_iter=3, warm_start=True).fit(X, Y)
    assert same(warm.fit(X, Y), whole) and len(warm.loss_curve_) == 6
    part = MLPClassifier((4,), random_state=0)
    for _ in range(6):
        part.partial_fit(X, Y, classes=[0, 1])
    assert same(part, whole)
    assert same(pickle.loads(pickle.dumps(warm)).partial_fit(X, Y), warm.partial_fit(X, Y))
    with pytest.raises(ValueError, match="first call of partial_fit needs classes="):
        MLPClassifier().partial_fit(X, Y)
    with pytest.raises(ValueError, match="none of the classes"):
        part.partial_fit(X, Y + 1)
    with pytest.raises(ValueError, match="y has 2 outputs, the network 1"):
        MLPRegressor(max_iter=1, warm_start=True).fit(LINE, LINE).partial_fit(LINE, WAVES)


# ---- in company ---------------------------------------------------------------------------------------------------


def test_pipelines_and_grid_searches():
    names = np.array(["left", "right"])[Y]
    pipe = make_pipeline(StandardScaler(), MLPClassifier((8,), learning_rate_init=0.05, batch_size=20, max_iter=20,
                                                           random_state=0))
    assert cross_val_score(pipe, 100 * X, names, cv=3).mean() > 0.9
    grid = GridSearchCV(pipe, {"mlpclassifier__optimizer": ["sgd", "adamw"], "mlpclassifier__alpha": [0, 1e-3]}, cv=2)
    grid.fit(X, names)
    assert grid.best_params_["mlpclassifier__optimizer"] == "adamw" and set(grid.predict(X)) == {"left", "right"}
    copy = clone(grid.best_estimator_[-1])
    assert copy.get_params() == grid.best_estimator_[-1].get_params() and not hasattr(copy, "model_")


def test_shapes_of_numbers():
    for y in (WAVES, WAVES[:, 0], WAVES[:, :1]):
        fitted = MLPRegressor((16,), "tanh", optimizer="lbfgs", random_state=0, tol=1e-6).fit(LINE, y)
        assert fitted.predict(LINE).shape == y.shape and fitted.score(LINE, y) > 0.99


@pytest.mark.parametrize("settings, words", [
    (dict(hidden_layer_sizes=(0,)), "hidden_layer_sizes must be"), (dict(activation="rely"), "nearest are relu"),
    (dict(optimizer="adan w"), "no optimizer named"), (dict(batch_size=0), "batch_size must be"),
    (dict(optimizer_options={"lr": 1}), "given as learning_rate_init"), (dict(optimizer="gaussnewton"), "residuals"),
    (dict(optimizer_options={"weight_decay": 1}), "given as alpha"), (dict(alpha=-1), r"alpha must be in \[0, inf\)"),
    (dict(optimizer="polyaksgd", learning_rate_init=0.1), "finds its own rate"), (dict(max_iter=0), "max_iter must"),
    (dict(validation_fraction=1), "validation_fraction must be")])
def test_settings_that_are_none(settings, words):
    with pytest.raises(ValueError, match=words):
        MLPClassifier(**settings).fit(X, Y)


def test_what_does_not_train():
    with warnings.catch_warnings(), pytest.raises(ValueError, match="StandardScaler"):
        warnings.simplefilter("ignore", RuntimeWarning)
        MLPRegressor(optimizer="sgd", learning_rate_init=10).fit(1e6 * LINE, WAVES)
