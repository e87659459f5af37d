"""Datasets, loaders, toy problems and the bundled digits."""
import time
from pathlib import Path

import numpy as np
import pytest

import tinygrad_opt as tg
from tinygrad_opt.data import DataLoader, Dataset, Subset, TensorDataset, random_split

PLANE = ("moons", "circles", "spirals", "blobs", "xor")


def numbered(n):
    """A dataset whose sample i is (row of i, i)."""
    rows = np.arange(n)[:, None].repeat(3, axis=1)
    return TensorDataset(tg.Tensor(rows, dtype=np.float32), np.arange(n))


def labels(loader):
    return [y.tolist() for _, y in loader]


# --- loaders ------------------------------------------------------------------------------------------------

def test_batches_in_order():
    loader = DataLoader(numbered(7), batch_size=3)
    assert len(loader) == 3 and labels(loader) == [[0, 1, 2], [3, 4, 5], [6]] == labels(loader)
    x, y = next(iter(loader))
    assert isinstance(x, tg.Tensor) and x.tolist() == [[0.0] * 3, [1.0] * 3, [2.0] * 3]
    assert x.dtype == np.float32 and y.dtype == np.int64 and not x.requires_grad


def test_drop_last():
    loader = DataLoader(numbered(7), batch_size=3, drop_last=True)
    assert len(loader) == 2 and labels(loader) == [[0, 1, 2], [3, 4, 5]]
    assert len(DataLoader(numbered(6), batch_size=3, drop_last=True)) == 2
    assert len(DataLoader(numbered(6), batch_size=3)) == 2
    assert labels(DataLoader(numbered(2), batch_size=100)) == [[0, 1]]


def test_a_shuffled_epoch_holds_every_sample_once_and_rows_stay_together():
    loader = DataLoader(numbered(50), batch_size=8, shuffle=True, generator=0)
    epochs = [[(int(a[0]), b) for x, y in loader for a, b in zip(x.tolist(), y.tolist(), strict=True)]
              for _ in range(2)]
    for epoch in epochs:
        assert all(a == b for a, b in epoch) and sorted(b for _, b in epoch) == list(range(50))
    assert epochs[0] != epochs[1]


def test_the_seed_fixes_the_order():
    def orders(generator):
        loader = DataLoader(numbered(20), batch_size=4, shuffle=True, generator=generator)
        return [labels(loader), labels(loader)]

    assert orders(3) == orders(tg.Generator(3)) != orders(4)
    tg.manual_seed(3)
    first = orders(None)
    tg.manual_seed(3)
    assert orders(None) == first


def test_the_generators_state_continues_the_epochs():
    generator = tg.Generator(1)
    loader = DataLoader(numbered(20), batch_size=4, shuffle=True, generator=generator)
    labels(loader)
    state = generator.get_state()
    expected = [labels(loader), labels(loader)]
    resumed = tg.Generator(0)
    resumed.set_state(state)
    loader = DataLoader(numbered(20), batch_size=4, shuffle=True, generator=resumed)
    assert [labels(loader), labels(loader)] == expected


def test_an_epoch_draws_its_order_when_it_begins():
    generator = tg.Generator(0)
    epoch = iter(DataLoader(numbered(20), shuffle=True, generator=generator))
    state = generator.get_state()
    list(epoch)
    assert generator.get_state() == state


def test_an_unshuffled_loader_draws_nothing():
    generator = tg.Generator(0)
    state = generator.get_state()
    labels(DataLoader(numbered(5), generator=generator))
    assert generator.get_state() == state


def test_batches_can_be_changed_without_changing_the_dataset():
    dataset = numbered(4)
    for x, _ in DataLoader(dataset, batch_size=2):
        x.data[...] = -1
    assert dataset.tensors[0].numpy().min() == 0


@pytest.mark.parametrize("dataset, arguments, error, message", [
    (numbered(5), {"batch_size": 0}, ValueError, "batch_size must be an integer of at least 1, got 0"),
    (numbered(5), {"batch_size": 2.0}, ValueError, "got 2.0"),
    (numbered(5), {"batch_size": True}, ValueError, "got True"),
    (numbered(0), {"shuffle": True}, ValueError, "no batch: the dataset has 0 samples"),
    ([], {}, ValueError, "no batch: the dataset has 0 samples"),
    (numbered(5), {"batch_size": 6, "drop_last": True}, ValueError, "batch_size is 6 and drop_last is True"),
    ((np.zeros(3), np.zeros(3)), {}, TypeError, r"got a tuple; for arrays use TensorDataset\(x, y\)"),
    (iter([1]), {}, TypeError, "got a list_iterator"),
])
def test_bad_arguments_of_a_loader(dataset, arguments, error, message):
    with pytest.raises(error, match=message):
        DataLoader(dataset, **arguments)


def test_a_batch_costs_microseconds():
    dataset = TensorDataset(np.zeros((2048, 64), np.float32), np.zeros(2048, np.int64))
    loader = DataLoader(dataset, batch_size=32, shuffle=True, generator=0)

    def epoch():
        start = time.perf_counter()
        for _ in loader:
            pass
        return (time.perf_counter() - start) / len(loader)

    per_sample = Dataset.batches(dataset, np.arange(2048), 32)
    start = time.perf_counter()
    list(per_sample)
    slow = (time.perf_counter() - start) / len(loader)
    assert min(epoch() for _ in range(5)) < slow / 2


# --- samples of other kinds ---------------------------------------------------------------------------------

def batch(samples):
    (out,) = DataLoader(samples, batch_size=len(samples))
    return out


def test_samples_are_stacked_by_kind():
    out = batch([{"x": np.full(2, i, np.float16), "pair": (i, [i / 2, tg.Tensor([i])]), "name": str(i),
                  "ok": i > 0} for i in range(2)])
    assert out["x"].dtype == np.float16 and out["x"].tolist() == [[0, 0], [1, 1]]
    assert out["pair"][0].dtype == np.int64 and out["pair"][0].tolist() == [0, 1]
    assert out["pair"][1][0].dtype == np.float32 and out["pair"][1][0].tolist() == [0.0, 0.5]
    assert out["pair"][1][1].tolist() == [[0], [1]]
    assert out["name"] == ["0", "1"]
    assert out["ok"].dtype == np.bool_ and out["ok"].tolist() == [False, True]
    assert batch([np.float64(1), np.float64(2)]).dtype == np.float64


@pytest.mark.parametrize("samples, error, message", [
    ([np.zeros(2), np.zeros(3)], ValueError, r"same shape, got \[\(2,\), \(3,\)\]"),
    ([(1, 2), (1,)], ValueError, "as many entries; the first has 2"),
    ([{"a": 1}, {"b": 1}], ValueError, r"the same keys; the first has \['a'\]"),
    ([None, None], TypeError, "cannot stack samples of type NoneType"),
])
def test_samples_that_do_not_stack(samples, error, message):
    with pytest.raises(error, match=message):
        batch(samples)


def test_a_dataset_must_say_its_length_and_samples():
    with pytest.raises(NotImplementedError, match="Half must define __len__"):
        len(type("Half", (Dataset,), {})())
    with pytest.raises(NotImplementedError, match="Half must define __getitem__"):
        type("Half", (Dataset,), {})()[0]


# --- datasets -----------------------------------------------------------------------------------------------

def test_tensor_dataset():
    dataset = numbered(5)
    x, y = dataset[3]
    assert len(dataset) == 5 and x.tolist() == [3.0] * 3 and y.item() == 3
    assert dataset[1:3][1].tolist() == [1, 2]
    with pytest.raises(IndexError):
        dataset[5]


@pytest.mark.parametrize("tensors, message", [
    ((), "one or more"),
    ((tg.Tensor([1.0, 2.0]), tg.Tensor([1])), r"same length along axis 0; got shapes \[\(2,\), \(1,\)\]"),
    ((tg.Tensor(1.0),), "along axis 0"),
    ((tg.Tensor([1.0], requires_grad=True),), "requires one; use .detach"),
])
def test_bad_tensors(tensors, message):
    with pytest.raises(ValueError, match=message):
        TensorDataset(*tensors)


def test_subset():
    subset = Subset(Subset(numbered(10), [9, 1, 5, 7]), [3, 0])
    assert len(subset) == 2 and subset[0][1].item() == 7
    assert labels(DataLoader(subset, batch_size=2)) == [[7, 9]]
    assert batch(Subset("abc", [2, 0])) == ["c", "a"]
    for indices in ([3], [-1], [[0]]):
        with pytest.raises(IndexError, match="from 0 to 2"):
            Subset("abc", indices)


@pytest.mark.parametrize("lengths, sizes", [
    ([7, 3], [7, 3]), ([0.75, 0.25], [8, 2]), ([1.0], [10]), ([10, 0], [10, 0]), ([0.1] * 10, [1] * 10),
])
def test_random_split(lengths, sizes):
    parts = random_split(numbered(10), lengths, generator=0)
    assert [len(part) for part in parts] == sizes
    assert sorted(int(i) for part in parts for i in part.indices) == list(range(10))
    again = random_split(numbered(10), lengths, generator=0)
    assert [p.indices.tolist() for p in parts] == [p.indices.tolist() for p in again]


@pytest.mark.parametrize("lengths", [[7, 4], [0.5, 0.4], [], [11, -1], [7.0, 3.0]])
def test_random_split_refuses_other_sums(lengths):
    with pytest.raises(ValueError, match="lengths must be sizes that sum to 10"):
        random_split(numbered(10), lengths)


# --- toy problems -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", PLANE)
def test_toy_problems_are_balanced_finite_and_fixed_by_the_seed(name):
    make = getattr(tg.data, name)
    x, y = make(90, generator=1)
    assert x.shape == (90, 2) and y.shape == (90,) and x.dtype == np.float32 and y.dtype == np.int64
    assert np.isfinite(x.numpy()).all() and len(set(np.bincount(y.numpy()))) == 1
    assert make(90, generator=tg.Generator(1))[0].tolist() == x.tolist() != make(90, generator=2)[0].tolist()
    tg.manual_seed(5)
    first = make(10)[0].tolist()
    tg.manual_seed(5)
    assert make(10)[0].tolist() == first != make(10)[0].tolist()
    assert make(1)[0].shape == (1, 2)
    with pytest.raises(ValueError, match="n must be an integer of at least 1, got 0"):
        make(0)
    for noise in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="noise must be finite and not negative"):
            make(10, noise=noise)


def plane(name, n=300, noise=0.0, **arguments):
    x, y = getattr(tg.data, name)(n, noise, 0, **arguments)
    a, b = x.numpy().T.astype(np.float64)
    return a, b, y.numpy()


def test_moons_lie_on_half_circles():
    a, b, y = plane("moons")
    np.testing.assert_allclose(np.hypot(a - y, b - 0.5 * y), 1, atol=1e-6)
    assert (b[y == 0] >= 0).all() and (b[y == 1] <= 0.5).all()


def test_circles_have_their_radii():
    a, b, y = plane("circles", factor=0.3)
    np.testing.assert_allclose(np.hypot(a, b), np.where(y, 0.3, 1.0), atol=1e-6)
    for factor in (0, 1, float("nan")):
        with pytest.raises(ValueError, match="factor must lie between 0 and 1"):
            tg.data.circles(10, factor=factor)


def test_spirals_wind_evenly():
    a, b, y = plane("spirals", classes=4, turns=0.8)
    radius = np.hypot(a, b)
    winding = np.exp(1j * 2 * np.pi * (0.8 * radius + y / 4))
    np.testing.assert_allclose(a + 1j * b, radius * winding, atol=1e-5)
    assert radius.max() <= 1 and abs((radius < 0.5 ** 0.5).mean() - 0.5) < 0.1     # half in half the area


def test_blobs_have_their_centres():
    a, b, y = plane("blobs", classes=5)
    np.testing.assert_allclose(a + 1j * b, np.exp(2j * np.pi * y / 5), atol=1e-6)
    with pytest.raises(ValueError, match="classes must be an integer of at least 1, got 2.5"):
        tg.data.blobs(10, classes=2.5)


def test_xor_is_the_sign_of_the_product():
    a, b, y = plane("xor")
    np.testing.assert_array_equal(a * b < 0, y == 1)
    assert max(abs(a).max(), abs(b).max()) <= 1 and len(set(zip(a > 0, b > 0, strict=True))) == 4


@pytest.mark.parametrize("name", PLANE)
def test_noise_is_a_standard_deviation(name):
    noisy, clean = getattr(tg.data, name)(5000, 0.2, 3), getattr(tg.data, name)(5000, 0.0, 3)
    assert (noisy[0].numpy() - clean[0].numpy()).std() == pytest.approx(0.2, rel=0.05)


# --- digits -------------------------------------------------------------------------------------------------

def test_digits_are_split_by_class_without_overlap():
    train, test = tg.data.digits()
    assert (len(train), len(test)) == (1442, 355)
    for part in train, test:
        images, classes = part.tensors
        assert images.dtype == np.float32 and images.shape == (len(part), 64) and classes.dtype == np.int64
        assert images.numpy().min() == 0 and images.numpy().max() == 1
    counts = [np.bincount(part.tensors[1].numpy()) for part in (train, test)]
    assert counts[1].tolist() == [n // 5 for n in counts[0] + counts[1]]


def test_digits_are_those_of_the_source():
    datasets = pytest.importorskip("sklearn.datasets")
    source, classes = datasets.load_digits(return_X_y=True)
    parts = [np.column_stack([images.numpy() * 16, labels.numpy()])
             for images, labels in (part.tensors for part in tg.data.digits())]
    expected = np.column_stack([source, classes])
    assert sorted(np.concatenate(parts).tolist()) == sorted(expected.tolist())


def test_the_file_of_the_digits_is_small_and_names_its_source():
    folder = Path(tg.__file__).parent / "data"
    assert (folder / "optdigits.npz").stat().st_size < 100_000
    text = (folder / "optdigits.md").read_text()
    assert "CC BY 4.0" in text and "10.24432/C50P49" in text and "Alpaydin" in text and "Kaynak" in text


def test_a_part_of_a_dataset_takes_slices_as_the_whole_does():
    x, y = tg.data.moons(20, generator=0)
    part = tg.data.random_split(tg.data.TensorDataset(x, y), [12, 8], 0)[0]
    whole, some = part[:], part[2:5]
    assert whole[0].shape == (12, 2) and (some[0] == whole[0][2:5]).all() and (part[3][0] == whole[0][3]).all()
