# SPDX-License-Identifier: MIT
"""The C interface (include/syncbn/syncbn.h) by ctypes."""
from __future__ import annotations

import ctypes
import sys
from typing import Any

import numpy

from . import _library

library = ctypes.CDLL(str(_library.find("libsyncbn.so")))

_ABI_VERSION = 1
if library.syncbn_abi_version() != _ABI_VERSION:
    raise ImportError(f"syncbn: the library's interface has version {library.syncbn_abi_version()}, this package wants {_ABI_VERSION}")


class Error(RuntimeError):
    """One sentence: where, got, wanted, and on which rank; the same on all ranks."""


class ShapeError(Error, ValueError):
    pass


class OptionError(Error, ValueError):
    pass


class StateError(Error):
    pass


class MismatchError(Error):
    pass


class MpiError(Error):
    pass


class NonFiniteError(Error, ArithmeticError):
    pass


class TimeoutError(Error):  # pylint: disable=redefined-builtin
    pass


_ERRORS = {1: ShapeError, 2: OptionError, 3: StateError, 4: MismatchError, 5: MpiError, 6: NonFiniteError, 7: TimeoutError,
           8: OptionError, 9: MemoryError}


class _Tensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("dtype", ctypes.c_int32), ("ndim", ctypes.c_int32),
                ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64))]


class _CommunicatorOptions(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t), ("deadline_seconds", ctypes.c_double), ("exchange", ctypes.c_int32)]


class _LayerOptions(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t), ("num_features", ctypes.c_int64), ("eps", ctypes.c_double),
                ("momentum", ctypes.c_double), ("cumulative_average", ctypes.c_int32), ("affine", ctypes.c_int32),
                ("track_running_stats", ctypes.c_int32), ("unbiased_running_var", ctypes.c_int32), ("activation", ctypes.c_int32),
                ("parameter_gradients", ctypes.c_int32), ("parameter_type", ctypes.c_int32), ("reduction", ctypes.c_int32),
                ("non_finite", ctypes.c_int32), ("threads", ctypes.c_int32), ("name", ctypes.c_char_p)]


ALL_GATHER = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
NUMBERS = {"float32": ctypes.c_float, "float64": ctypes.c_double}
_TYPES = {"float32": 0, "float64": 1, "bfloat16": 2, "float16": 3}

_pointer, _handle, _int32 = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32
_tensor = ctypes.POINTER(_Tensor)
_SIGNATURES = {
    "syncbn_communicator_self": [_pointer],
    "syncbn_communicator_create": [_int32, _pointer, _pointer],
    "syncbn_communicator_groups_of": [_int32, _int32, _pointer, _pointer],
    "syncbn_communicator_per_node": [_int32, _pointer, _pointer],
    "syncbn_communicator_from_callback": [_int32, _int32, ALL_GATHER, _pointer, _pointer, _pointer],
    "syncbn_communicator_rank": [_handle],
    "syncbn_communicator_size": [_handle],
    "syncbn_communicator_join": [_handle, _pointer],
    "syncbn_communicator_destroy": [_handle],
    "syncbn_layer_options_init": [_pointer, ctypes.c_size_t],
    "syncbn_layer_create": [_pointer, _handle, _pointer],
    "syncbn_layer_destroy": [_handle],
    "syncbn_layer_forward_train": [_handle, _tensor, _tensor, _tensor, _handle],
    "syncbn_layer_forward_frozen": [_handle, _tensor, _tensor, _tensor, _handle],
    "syncbn_layer_forward_eval": [_handle, _tensor, _tensor, _tensor],
    "syncbn_layer_backward": [_handle, _handle, _tensor, _tensor, _tensor, _pointer, _pointer],
    "syncbn_layer_state": [_handle, _int32, _pointer],
    "syncbn_layer_num_batches_tracked": [_handle, _pointer],
    "syncbn_layer_set_num_batches_tracked": [_handle, ctypes.c_int64],
    "syncbn_cache_create": [_pointer],
    "syncbn_cache_destroy": [_handle],
    "syncbn_cache_statistics": [_handle, _int32, _pointer, _pointer],
    "syncbn_cache_count": [_handle, _pointer],
}
for _name, _arguments in _SIGNATURES.items():
    getattr(library, _name).argtypes = _arguments
    getattr(library, _name).restype = None if _name.endswith(("_destroy", "_init")) else _int32
for _name in ("syncbn_last_error", "syncbn_version", "syncbn_instruction_set"):
    getattr(library, _name).restype = ctypes.c_char_p


def check(status: int) -> None:
    if status != 0:
        raise _ERRORS.get(status, Error)(library.syncbn_last_error().decode(errors="replace"))


def made(call: Any, *arguments: Any) -> ctypes.c_void_p:
    """The handle that a call makes."""
    handle = ctypes.c_void_p()
    check(call(*arguments, ctypes.byref(handle)))
    return handle


def destroy(name: str, owner: Any) -> None:
    """Gives an object's handle back, once. At the end of the interpreter nothing may be there any more: the process ends, too."""
    handle = owner.__dict__.pop("_handle", None)
    if handle is not None and sys is not None and not sys.is_finalizing():
        getattr(library, name)(handle)


def choice(option: str, value: str, names: tuple) -> int:
    if value not in names:
        raise OptionError(f"[syncbn] {option} is {value!r}, wanted one of {', '.join(names)}")
    return names.index(value)


def communicator_options(deadline_seconds: float, exchange: str) -> Any:
    number = choice("exchange", exchange, ("automatic", "all_reduce", "all_gather"))
    return ctypes.byref(_CommunicatorOptions(ctypes.sizeof(_CommunicatorOptions), deadline_seconds, number))


def layer_options(**values: Any) -> _LayerOptions:
    options = _LayerOptions()
    library.syncbn_layer_options_init(ctypes.byref(options), ctypes.sizeof(options))
    for name, value in values.items():
        setattr(options, name, value)
    return options


def type_of(dtype: numpy.dtype) -> int:
    """-1 where there is none: the layer says so, on all ranks."""
    return _TYPES.get(dtype.name, -1) if dtype.isnative else -1


def tensor(array: Any, is_written: bool = False) -> Any:
    """How the C interface sees an array, valid during a call. What is none has no type: so this rank takes part in the message, and all
    ranks get the layer's error."""
    if defect(array, is_written) is not None:
        return ctypes.byref(_Tensor(None, -1, 1, (ctypes.c_int64 * 1)(0), (ctypes.c_int64 * 1)(1)))
    extents = (ctypes.c_int64 * max(array.ndim, 1))(*array.shape)
    # Strides that are no multiple of the element's size belong to no dense array.
    strides = (ctypes.c_int64 * max(array.ndim, 1))(*(s // array.itemsize if s % array.itemsize == 0 else -1 for s in array.strides))
    described = _Tensor(array.ctypes.data, type_of(array.dtype), array.ndim, extents, strides)
    return ctypes.byref(described)


def optional(array: Any, is_written: bool = False) -> Any:
    """The same, or no tensor if it is None."""
    return None if array is None else tensor(array, is_written)


def like(array: Any) -> Any:
    """For the result."""
    return numpy.empty_like(array) if defect(array) is None else numpy.empty(0)


def defect(array: Any, is_written: bool = False) -> Any:
    """What is wrong with it as seen from Python, as an exception; or None."""
    if not isinstance(array, numpy.ndarray) or isinstance(array, numpy.ma.MaskedArray):
        return TypeError(f"syncbn: wanted a NumPy array, got {type(array).__name__}")
    if is_written and not array.flags.writeable:
        return ValueError("syncbn: the array for the result is read-only")
    return None


def address(array: Any) -> Any:
    return None if array is None else array.ctypes.data
