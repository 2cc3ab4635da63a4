# SPDX-License-Identifier: MIT
"""Synchronized batch normalization for MPI programs in Python: NumPy arrays and mpi4py communicators, no PyTorch needed (for that:
syncbn.torch).

    from mpi4py import MPI
    import numpy, syncbn

    bn = syncbn.BatchNorm(64, syncbn.Communicator(MPI.COMM_WORLD))
    y, cache = bn.forward_train(x)                    # x: this rank's samples, (N, 64, *spatial)
    dx, dgamma, dbeta = bn.backward(cache, dy)

Arrays are (N, C, *spatial) of float32, float64, float16 or ml_dtypes.bfloat16. Nothing is copied: an array whose memory is neither in
this order nor in that of (N, *spatial, C) is refused. For an array x of shape (N, H, W, C) pass numpy.moveaxis(x, -1, 1), which is
a view. What the calls send, cost and promise: include/syncbn/batch_norm.hpp.
"""
from __future__ import annotations

import ctypes
from typing import Any, Callable, Optional

import numpy

from . import _c

__all__ = ["BatchNorm", "Cache", "Communicator", "Error", "instruction_set", "version"]

Error = _c.Error
ShapeError = _c.ShapeError
OptionError = _c.OptionError
StateError = _c.StateError
MismatchError = _c.MismatchError
MpiError = _c.MpiError
NonFiniteError = _c.NonFiniteError
TimeoutError = _c.TimeoutError  # pylint: disable=redefined-builtin


def version() -> str:
    return _c.library.syncbn_version().decode()


def instruction_set() -> str:
    """The kernels that run: "avx512", "avx2", "native" or "scalar"."""
    return _c.library.syncbn_instruction_set().decode()


class Communicator:
    """The processes that share their statistics: none given, this one alone; else all ranks of an mpi4py communicator. Collective."""

    def __init__(self, comm: Any = None, *, deadline_seconds: float = 0.0, exchange: str = "automatic"):
        options = _c.communicator_options(deadline_seconds, exchange)
        if comm is None:
            self._handle = _c.made(_c.library.syncbn_communicator_self)
        else:
            self._handle = _c.made(_c.library.syncbn_communicator_create, comm.py2f(), options)

    @classmethod
    def _of(cls, handle: ctypes.c_void_p) -> "Communicator":
        self = cls.__new__(cls)
        self._handle = handle
        return self

    @classmethod
    def groups_of(cls, ranks: int, comm: Any, *, deadline_seconds: float = 0.0, exchange: str = "automatic") -> "Communicator":
        """This rank's group among groups of `ranks` consecutive ranks."""
        return cls._of(_c.made(_c.library.syncbn_communicator_groups_of, ranks, comm.py2f(),
                               _c.communicator_options(deadline_seconds, exchange)))

    @classmethod
    def per_node(cls, comm: Any, *, deadline_seconds: float = 0.0, exchange: str = "automatic") -> "Communicator":
        """This rank's group among those that share a node."""
        return cls._of(_c.made(_c.library.syncbn_communicator_per_node, comm.py2f(),
                               _c.communicator_options(deadline_seconds, exchange)))

    @classmethod
    def from_all_gather(cls, rank: int, size: int, all_gather: Callable[[bytes], bytes]) -> "Communicator":
        """`size` processes with something else than MPI: all_gather(mine) returns every rank's bytes, joined in the order of ranks. It
        should raise when ranks are missing; what it raises becomes an MpiError, and stands behind it as its cause."""

        def call(_context, mine, count, everything):
            try:
                gathered = all_gather(ctypes.string_at(mine, count))
                if len(gathered) != count * size:
                    return 1
                ctypes.memmove(everything, gathered, len(gathered))
                return 0
            except Exception as error:  # must not go through C
                self._error = error
                return 2

        self = cls.__new__(cls)
        self._error = None
        self._callback = _c.ALL_GATHER(call)
        try:
            self._handle = _c.made(_c.library.syncbn_communicator_from_callback, rank, size, self._callback, None, None)
        except Error as error:
            raise error from self._error
        return self

    def __del__(self):
        _c.destroy("syncbn_communicator_destroy", self)

    @property
    def rank(self) -> int:
        return _c.library.syncbn_communicator_rank(self._handle)

    @property
    def size(self) -> int:
        return _c.library.syncbn_communicator_size(self._handle)

    def join(self) -> int:
        """For a rank that has run out of data: answers until all have joined; the lowest rank that had data in the last step."""
        last = ctypes.c_int32(-1)
        _c.check(_c.library.syncbn_communicator_join(self._handle, ctypes.byref(last)))
        return last.value


class Cache:
    """What a forward pass leaves for backward(): statistics (C) in float64, and the arrays that it still needs."""

    def __init__(self):
        self._handle = _c.made(_c.library.syncbn_cache_create)
        self._arrays: tuple = ()  # backward reads x, and y behind an activation

    def __del__(self):
        _c.destroy("syncbn_cache_destroy", self)

    def _statistics(self, which: int) -> numpy.ndarray:
        data, size = ctypes.POINTER(ctypes.c_double)(), ctypes.c_int64()
        _c.check(_c.library.syncbn_cache_statistics(self._handle, which, ctypes.byref(data), ctypes.byref(size)))
        return numpy.ctypeslib.as_array(data, (size.value,)).copy() if size.value else numpy.empty(0)

    @property
    def mean(self) -> numpy.ndarray:
        return self._statistics(0)

    @property
    def var(self) -> numpy.ndarray:
        """Biased."""
        return self._statistics(1)

    @property
    def invstd(self) -> numpy.ndarray:
        return self._statistics(2)

    @property
    def count(self) -> int:
        """Values per channel in the global batch."""
        count = ctypes.c_int64()
        _c.check(_c.library.syncbn_cache_count(self._handle, ctypes.byref(count)))
        return count.value


class BatchNorm:
    """A batch normalization layer over a communicator (none: this process alone). Options as in BatchNormOptions of the C++ headers;
    dtype is that of gamma, beta and the running statistics: "float64" goes with float64 arrays, "float32" with all others."""

    def __init__(self, num_features: int, communicator: Optional[Communicator] = None, *, eps: float = 1e-5,
                 momentum: Optional[float] = 0.1, affine: bool = True, track_running_stats: bool = True,
                 unbiased_running_var: bool = True, activation: Optional[str] = None, parameter_gradients: str = "global",
                 dtype: Any = "float32", reduction: str = "reproducible", non_finite: str = "propagate", threads: int = 1,
                 name: str = "bn"):
        self.num_features = num_features
        self.dtype = numpy.dtype(dtype)
        self._has_parameters = affine
        self._communicator = communicator  # its callback has to stay
        options = _c.layer_options(
            num_features=num_features, eps=eps, momentum=0.0 if momentum is None else momentum, cumulative_average=momentum is None,
            affine=affine, track_running_stats=track_running_stats, unbiased_running_var=unbiased_running_var,
            activation=_c.choice("activation", activation or "none", ("none", "relu")),
            parameter_gradients=_c.choice("parameter_gradients", parameter_gradients, ("global", "local")),
            parameter_type=_c.type_of(self.dtype), reduction=_c.choice("reduction", reduction, ("fast", "reproducible")),
            non_finite=_c.choice("non_finite", non_finite, ("propagate", "error")), threads=threads, name=name.encode())
        self._handle = _c.made(_c.library.syncbn_layer_create, ctypes.byref(options), communicator and communicator._handle)

    def __del__(self):
        _c.destroy("syncbn_layer_destroy", self)

    def forward_train(self, x, *, residual=None, out=None, cache: Optional[Cache] = None):
        """(y, cache). Collective: one message. out and cache: used again instead of new ones. out may be x, but then there is no
        backward."""
        return self._forward(_c.library.syncbn_layer_forward_train, x, residual, out, cache)

    def forward_frozen(self, x, *, residual=None, out=None, cache: Optional[Cache] = None):
        """(y, cache) with the running statistics, as constants of the training. Local."""
        return self._forward(_c.library.syncbn_layer_forward_frozen, x, residual, out, cache)

    def _forward(self, call, x, residual, out, cache):
        cache = Cache() if cache is None else cache
        y = _c.like(x) if out is None else out
        status = call(self._handle, _c.tensor(x), _c.tensor(y, True), _c.optional(residual), cache._handle)
        self._check(status, x, (residual,), (y,))
        cache._arrays = (x, y)
        return y, cache

    def forward_eval(self, x, *, residual=None, out=None):
        """y with the running statistics. Local."""
        y = _c.like(x) if out is None else out
        status = _c.library.syncbn_layer_forward_eval(self._handle, _c.tensor(x), _c.tensor(y, True), _c.optional(residual))
        self._check(status, x, (residual,), (y,))
        return y

    def backward(self, cache: Cache, dy, *, wants_dx: bool = True, out=None, dresidual=None):
        """(dx, dgamma, dbeta); None for those that are not wanted or that the layer does not have. Collective: one message. out: dx,
        may be dy."""
        dx = None
        if wants_dx:
            dx = _c.like(dy) if out is None else out
        dgamma = dbeta = None
        if self._has_parameters:
            dgamma, dbeta = numpy.empty(self.num_features, self.dtype), numpy.empty(self.num_features, self.dtype)
        status = _c.library.syncbn_layer_backward(self._handle, cache._handle, _c.tensor(dy), _c.optional(dx, True),
                                                  _c.optional(dresidual, True), _c.address(dgamma), _c.address(dbeta))
        self._check(status, dy, (), (dx, dresidual))
        return dx, dgamma, dbeta

    def _check(self, status: int, required: Any, optional: tuple, written: tuple) -> None:
        """The error of a call. Where an argument of this rank was no array at all, in those words, with the layer's behind it."""
        try:
            _c.check(status)
        except Error as error:
            others = [(a, False) for a in optional] + [(a, True) for a in written]
            defects = [_c.defect(required)] + [_c.defect(a, is_written) for a, is_written in others if a is not None]
            own = next((d for d in defects if d is not None), None)
            if own is not None:
                raise own from error
            raise error from getattr(self._communicator, "_error", None) if isinstance(error, MpiError) else None

    def _state(self, which: int) -> Optional[numpy.ndarray]:
        data = ctypes.c_void_p()
        _c.check(_c.library.syncbn_layer_state(self._handle, which, ctypes.byref(data)))
        if not data.value:
            return None
        numbers = (_c.NUMBERS[self.dtype.name] * self.num_features).from_address(data.value)
        numbers.layer = self  # the memory is the layer's
        return numpy.ctypeslib.as_array(numbers)

    @property
    def gamma(self) -> Optional[numpy.ndarray]:
        """A view of the layer's own numbers: write to it to change them."""
        return self._state(0)

    @property
    def beta(self) -> Optional[numpy.ndarray]:
        return self._state(1)

    @property
    def running_mean(self) -> Optional[numpy.ndarray]:
        return self._state(2)

    @property
    def running_var(self) -> Optional[numpy.ndarray]:
        return self._state(3)

    @property
    def num_batches_tracked(self) -> int:
        count = ctypes.c_int64()
        _c.check(_c.library.syncbn_layer_num_batches_tracked(self._handle, ctypes.byref(count)))
        return count.value

    @num_batches_tracked.setter
    def num_batches_tracked(self, count: int) -> None:
        _c.check(_c.library.syncbn_layer_set_num_batches_tracked(self._handle, count))
