#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The Python package on NumPy arrays, under mpirun with mpi4py, or alone without it."""
import hashlib
import sys
import unittest

import numpy

try:
    from mpi4py import MPI
    WORLD = MPI.COMM_WORLD
    RANK, RANKS = WORLD.rank, WORLD.size
except ImportError:
    MPI, WORLD, RANK, RANKS = None, None, 0, 1

import syncbn


def communicator():
    return syncbn.Communicator(WORLD)


def whole(shape, dtype="float32", seed=1):
    generator = numpy.random.default_rng(seed)
    return ((generator.standard_normal(shape) * 2 + 3).astype(dtype), generator.standard_normal(shape).astype(dtype))


def part(array):
    count = array.shape[0]
    return array[count * RANK // RANKS:count * (RANK + 1) // RANKS]


def formula(x, dy, eps=1e-5):
    """y, dx, dgamma, dbeta of the whole batch in f64, gamma 1 and beta 0."""
    x, dy = x.astype("float64"), dy.astype("float64")
    axes = (0,) + tuple(range(2, x.ndim))
    mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    xhat = (x - mean) / numpy.sqrt(var + eps)
    dx = (dy - dy.mean(axes, keepdims=True) - xhat * (dy * xhat).mean(axes, keepdims=True)) / numpy.sqrt(var + eps)
    return xhat, dx, (dy * xhat).sum(axes), dy.sum(axes)


class Arrays(unittest.TestCase):
    def step(self, x, dy, dtype="float32", **options):
        layer = syncbn.BatchNorm(x.shape[1], communicator(), dtype=dtype, **options)
        y, cache = layer.forward_train(part(x))
        return (y, *layer.backward(cache, part(dy)), layer, cache)

    def test_step_is_the_formula(self):
        for shape in ((12, 5), (11, 3, 4), (9, 3, 4, 5)):
            for dtype in ("float32", "float64"):
                x, dy = whole(shape, dtype)
                y, dx, dgamma, dbeta, layer, cache = self.step(x, dy, dtype)
                right_y, right_dx, right_dgamma, right_dbeta = formula(x, dy)
                tolerance = 1e-6 if dtype == "float32" else 1e-13
                numpy.testing.assert_allclose(y, part(right_y), atol=4 * tolerance, rtol=tolerance)
                numpy.testing.assert_allclose(dx, part(right_dx), atol=4 * tolerance, rtol=tolerance)
                numpy.testing.assert_allclose(dgamma, right_dgamma, atol=40 * tolerance, rtol=tolerance)
                numpy.testing.assert_allclose(dbeta, right_dbeta, atol=40 * tolerance, rtol=tolerance)
                self.assertEqual(cache.count, x.size // x.shape[1])
                numpy.testing.assert_allclose(layer.running_mean, 0.1 * cache.mean, rtol=1e-6)
                self.assertEqual((layer.num_batches_tracked, layer.gamma.dtype.name), (1, dtype))

    def test_same_bytes_for_every_number_of_ranks(self):
        x, dy = whole((12, 6, 5))
        y, dx, dgamma, dbeta, _, _ = self.step(x, dy)
        parts = WORLD.allgather((y, dx)) if WORLD else [(y, dx)]
        data = b"".join(numpy.concatenate(p).tobytes() for p in zip(*parts)) + dgamma.tobytes() + dbeta.tobytes()
        if RANK == 0:
            print("\nBITS", hashlib.sha256(data).hexdigest()[:16], flush=True)

    def test_channels_last_is_a_view(self):
        x, dy = whole((8, 4, 3, 6))  # (N, H, W, C)
        x, dy = numpy.moveaxis(x, -1, 1), numpy.moveaxis(dy, -1, 1)
        y, dx, _, _, _, _ = self.step(x, dy)
        right_y, right_dx, _, _ = formula(x, dy)
        numpy.testing.assert_allclose(y, part(right_y), atol=4e-6)
        numpy.testing.assert_allclose(dx, part(right_dx), atol=4e-6)
        self.assertTrue(y.size == 0 or numpy.moveaxis(y, 1, -1).flags.c_contiguous)

    def test_relu_and_residual(self):
        x, dy = whole((8, 3, 4))
        z, _ = whole((8, 3, 4), seed=2)
        layer = syncbn.BatchNorm(3, communicator(), activation="relu")
        residual, dresidual = part(z), numpy.empty_like(part(z))
        y, cache = layer.forward_train(part(x), residual=residual)
        numpy.testing.assert_allclose(y, numpy.maximum(part(formula(x, dy)[0] + z), 0), atol=4e-6)
        layer.backward(cache, part(dy), dresidual=dresidual)
        numpy.testing.assert_array_equal(dresidual, numpy.where(y > 0, part(dy), 0))

    def test_half(self):
        x, dy = whole((8, 3, 4), "float16")
        y, dx, dgamma, _, _, _ = self.step(x, dy)
        self.assertEqual((y.dtype, dx.dtype, dgamma.dtype), (numpy.float16, numpy.float16, numpy.float32))
        numpy.testing.assert_allclose(y, part(formula(x, dy)[0]), atol=4e-3)

    def test_state_is_a_view(self):
        layer = syncbn.BatchNorm(2, communicator())
        layer.gamma[:] = [0, 0]
        layer.beta[:] = [5, 7]
        numpy.testing.assert_array_equal(layer.forward_eval(numpy.ones((1, 2), "float32")), [[5, 7]])
        gamma = layer.gamma
        del layer
        gamma[0] = 1  # the layer is still there
        plain = syncbn.BatchNorm(2, communicator(), affine=False, track_running_stats=False)
        self.assertIsNone(plain.gamma)
        self.assertIsNone(plain.running_var)
        x, dy = whole((4, 2))
        y, cache = plain.forward_train(part(x))
        self.assertEqual(plain.backward(cache, part(dy))[1:], (None, None))

    def test_copies_are_refused_on_all_ranks(self):
        layer = syncbn.BatchNorm(3, communicator(), name="block.bn")
        for rank in range(RANKS):
            x = numpy.ones((4, 3, 8), "float32")
            with self.assertRaisesRegex(syncbn.ShapeError, r"\[BatchNorm 'block.bn' forward\] x is not dense"):
                layer.forward_train(x[:, :, ::2] if rank == RANK else x[:, :, :4].copy())
            with self.assertRaisesRegex(syncbn.ShapeError, "unknown element type"):
                layer.forward_train(x.astype("int32" if rank == RANK else "float32"))
        self.assertEqual(layer.num_batches_tracked, 0)

    def test_what_is_no_array_on_one_rank_is_an_error_on_all(self):
        layer = syncbn.BatchNorm(2, communicator())
        x = numpy.ones((3, 2), "float32")
        readonly = x.copy()
        readonly.flags.writeable = False
        y, cache = layer.forward_train(x)
        wrong = [(x.tolist(), None, TypeError, "got list"), (None, None, TypeError, "got NoneType"),
                 (numpy.ma.array(x, mask=x > 0), None, TypeError, "got MaskedArray"), (x, readonly, ValueError, "read-only")]
        for rank in range(RANKS):
            for bad, out, kind, words in wrong:
                with self.assertRaisesRegex(*((kind, words) if rank == RANK else (syncbn.ShapeError, "unknown element type"))):
                    layer.forward_train(bad if rank == RANK else x, out=out if rank == RANK else None)
            with self.assertRaisesRegex(*((TypeError, "got list") if rank == RANK else (syncbn.ShapeError, "unknown element type"))):
                layer.backward(cache, x.tolist() if rank == RANK else x)
        self.assertEqual(layer.num_batches_tracked, 1)
        numpy.testing.assert_array_equal(layer.forward_train(x)[0], y)

    def test_option_errors(self):
        with self.assertRaisesRegex(syncbn.OptionError, "reduction is 'exact', wanted one of fast, reproducible"):
            syncbn.BatchNorm(3, reduction="exact")
        with self.assertRaises(TypeError):
            syncbn.BatchNorm(3).forward_eval([[1, 2, 3]])
        readonly = numpy.ones((2, 3), "float32")
        readonly.flags.writeable = False
        with self.assertRaisesRegex(ValueError, "read-only"):
            syncbn.BatchNorm(3).forward_eval(readonly, out=readonly)
        with self.assertRaisesRegex(syncbn.OptionError, "num_features is 0"):
            syncbn.BatchNorm(0)

    def test_exception_kinds(self):
        layer = syncbn.BatchNorm(2, communicator(), non_finite="error")
        with self.assertRaises(syncbn.NonFiniteError):
            layer.forward_train(numpy.full((2, 2), numpy.nan, "float32"))
        with self.assertRaises(syncbn.StateError):
            layer.backward(syncbn.Cache(), numpy.ones((2, 2), "float32"))


@unittest.skipUnless(MPI, "mpi4py is not installed")
class Ranks(unittest.TestCase):
    def test_own_all_gather_gives_the_bytes_of_mpi(self):
        x, _ = whole((9, 4, 3))
        by_callback = syncbn.BatchNorm(4, syncbn.Communicator.from_all_gather(RANK, RANKS, lambda mine: b"".join(WORLD.allgather(mine))))
        numpy.testing.assert_array_equal(by_callback.forward_train(part(x))[0], syncbn.BatchNorm(4, communicator()).forward_train(part(x))[0])

    def test_failing_all_gather(self):
        if RANKS == 1:
            return
        with self.assertRaisesRegex(syncbn.MpiError, "it returned 1"):
            syncbn.Communicator.from_all_gather(RANK, RANKS, lambda mine: mine)
        with self.assertRaises(syncbn.MpiError) as caught:
            syncbn.Communicator.from_all_gather(RANK, RANKS, lambda mine: b"" * (1 // 0))
        self.assertIsInstance(caught.exception.__cause__, ZeroDivisionError)

    def test_groups(self):
        pairs = syncbn.Communicator.groups_of(2, WORLD)
        self.assertEqual((pairs.rank, pairs.size), (RANK % 2, min(2, RANKS - RANK // 2 * 2)))
        self.assertEqual(syncbn.Communicator.per_node(WORLD).size, RANKS)

    def test_join(self):
        world = communicator()
        layer = syncbn.BatchNorm(2, world)
        x, _ = whole((4, 2))
        for _ in range(1 if RANK else 3):
            layer.forward_train(x)
        self.assertEqual(world.join(), 0)
        self.assertEqual(layer.num_batches_tracked, 3)
        self.assertEqual(len(set(WORLD.allgather(layer.running_mean.tobytes()))), 1)


if __name__ == "__main__":
    if MPI is None and RANK == 0:
        print("without mpi4py: one process alone")
    result = unittest.main(exit=False, verbosity=2).result
    ok = result.wasSuccessful()
    if WORLD:
        ok = all(WORLD.allgather(ok))
    sys.exit(0 if ok else 1)
