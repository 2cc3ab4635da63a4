# SPDX-License-Identifier: MIT
"""Synchronized batch normalization for PyTorch on CPUs, which torch.nn.SyncBatchNorm refuses.

    import syncbn.torch
    model = syncbn.torch.convert_sync_batchnorm(model)          # then DistributedDataParallel(model), as always

One message each way; y, dx and the running statistics are the same bytes for any number of processes and any split of the batch.
dweight and dbias are this process's sums, as torch.nn.SyncBatchNorm's are: DDP averages them.
"""
from __future__ import annotations

import collections
import ctypes
import warnings
import weakref
from typing import Any, Optional

import torch
import torch.distributed
from torch.nn.modules.batchnorm import _BatchNorm

from . import _library

__all__ = ["BatchNormNd", "SyncBatchNorm", "convert_sync_batchnorm", "revert_sync_batchnorm"]

try:
    torch.ops.load_library(str(_library.find("libsyncbn_torch.so")))
except ImportError as error:
    raise ImportError(f"{error}. It is built where PyTorch is there already: pip install --no-build-isolation src/python") from None

_ops = torch.ops.syncbn


# ---- which processes -----------------------------------------------------------------------------------------------------


class _Group:
    """The library's group of processes, with what it was made from (which must stay as long)."""

    def __init__(self, processes: Any, group: Any):
        self.processes = processes
        self.group = group


# One for each process group, whatever number of layers has it, gone with the last of them. A key cannot be used again before:
# the value holds what it is the id of.
_groups: "weakref.WeakValueDictionary[tuple, _Group]" = weakref.WeakValueDictionary()


def _group_for(processes: Any) -> _Group:
    """None: all processes of torch.distributed, or this one alone; a torch ProcessGroup; an mpi4py communicator. Collective."""
    if processes is None:
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return _alone()
        processes = torch.distributed.distributed_c10d._get_default_group()
    if torch.distributed.is_available() and processes == torch.distributed.GroupMember.NON_GROUP_MEMBER:
        raise TypeError("process_group is a group that this process is not in")
    if hasattr(processes, "py2f"):
        key = ("mpi", id(processes), processes.py2f())  # after Free() MPI gives the number to another communicator
        make = lambda: _ops.group_of_mpi(processes.py2f())
    elif hasattr(processes, "allgather"):
        key = ("torch", id(processes))
        make = lambda: _group_of_processes(processes)
    else:
        raise TypeError(f"process_group is {processes!r}, wanted None, a torch.distributed ProcessGroup that this process is "
                        "in, or an mpi4py communicator")
    group = _groups.get(key)
    if group is None:
        group = _groups[key] = _Group(processes, make())
    return group


_ALL_GATHER = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
_callbacks: list = []  # for good: what autograd keeps of a layer may outlive all modules


def _deadline_seconds(processes: Any) -> float:
    """The process group's timeout, as far as PyTorch tells."""
    try:
        backend = processes._get_backend(torch.device("cpu")) if hasattr(processes, "_get_backend") else processes
        return backend.options._timeout.total_seconds()
    except (AttributeError, RuntimeError):
        return torch.distributed.distributed_c10d.default_pg_timeout.total_seconds()


def _group_of_processes(processes: Any) -> Any:
    """PyTorch 2 hands a process group to operators; before, they call back."""
    deadline = _deadline_seconds(processes)
    if hasattr(processes, "boxed"):
        return _ops.group_of_processes(processes.boxed(), deadline)
    rank, size, own = processes.rank(), processes.size(), weakref.ref(processes)

    def bytes_at(address: int, length: int) -> torch.Tensor:
        return torch.frombuffer((ctypes.c_char * length).from_address(address), dtype=torch.uint8)

    def all_gather(_context: int, mine: int, length: int, everyone: int) -> int:
        try:
            parts = [bytes_at(everyone + r * length, length) for r in range(size)]
            own().allgather([parts], [bytes_at(mine, length)]).wait()
            return 0
        except Exception as error:  # pylint: disable=broad-except  # nothing may go through C
            warnings.warn(f"syncbn: the process group's all-gather failed: {error}")
            return 1

    callback = _ALL_GATHER(all_gather)
    _callbacks.append(callback)
    return _ops.group_of_callback(rank, size, ctypes.cast(callback, ctypes.c_void_p).value, 0, deadline)


def _alone() -> _Group:
    group = _groups.get(("alone",))
    if group is None:
        group = _groups[("alone",)] = _Group(None, _ops.group_alone())
    return group


class _ProcessGroup:
    """Holds a process group in a module: copies of the module share it, and it does not go into files."""

    def __init__(self, processes: Any):
        self.processes = processes

    def __deepcopy__(self, memo: dict) -> "_ProcessGroup":
        return self

    def __reduce__(self) -> tuple:
        return (_ProcessGroup, (None,)) if self.processes is None else (_group_that_was_left, ())


def _group_that_was_left() -> _ProcessGroup:
    warnings.warn("syncbn: a SyncBatchNorm was saved that had a process group of its own, which does not go into files: it has that "
                  "of all processes now, until its process_group is set")
    return _ProcessGroup(None)


# ---- autograd ------------------------------------------------------------------------------------------------------------


class _Pass:
    """A forward pass whose repetition is awaited."""

    __slots__ = ("layer", "cache", "fingerprint", "was_repeated")

    def __init__(self, layer: Any, cache: torch.Tensor, fingerprint: int):
        self.layer = layer
        self.cache = cache
        self.fingerprint = fingerprint
        self.was_repeated = False


_TRAIN, _FROZEN, _AGAIN = 0, 1, 2  # of the operator `normalize`


_is_compiling = getattr(getattr(torch, "compiler", None), "is_compiling", lambda: False)


def _is_in_backward() -> bool:
    return torch._C._current_graph_task_id() != -1


if not hasattr(torch._C, "_current_graph_task_id"):  # before PyTorch 2
    _is_in_backward = _ops.is_in_backward.default


def _may_be_repeated() -> bool:
    """Activation checkpointing throws away what a forward pass saves: without gradients, or by hooks."""
    if not torch.is_grad_enabled():
        return True
    hooks = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
    return hooks is None or hooks(True) is not None


def _outside_graphs(function: Any) -> Any:
    """What torch.compiler.disable makes of it; by way of PyTorch's own decorator for its optimizers where there is one, which does
    not import the compiler before it is at work: that takes as long as importing PyTorch."""
    try:
        from torch._compile import _disable_dynamo
    except ImportError:
        return torch.compiler.disable(function) if hasattr(torch, "compiler") else function
    return _disable_dynamo(function)


# ---- the module ----------------------------------------------------------------------------------------------------------


class SyncBatchNorm(_BatchNorm):
    """torch.nn.SyncBatchNorm's constructor, attributes and state_dict, for tensors on the CPU: (N, C, *), contiguous or
    channels-last, float32, float64, bfloat16 or float16.

    process_group: None (all processes of torch.distributed if it is initialized, else this process alone), a ProcessGroup, or an
    mpi4py communicator. The first training pass makes the group, and every module's layer on it, on all processes.

    In training every process of the group has to call forward, and backward, the same number of times in the same order; batches may
    be of different sizes, or empty. In eval nothing is sent. Wrong shapes on one process raise ValueError on all of them.
    """

    _passes_kept = 64  # forward passes whose repetition is awaited, where gradients are off or saved tensors have hooks

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: Optional[float] = 0.1, affine: bool = True,
                 track_running_stats: bool = True, process_group: Any = None, device=None, dtype=None):
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device=device, dtype=dtype)
        self._init_syncbn(process_group)

    def _init_syncbn(self, process_group: Any) -> None:
        self._process_group = _ProcessGroup(process_group)
        self._original_class: Optional[type] = None
        self._forget_layers()

    def _forget_layers(self) -> None:
        self._layers: dict = {}
        self._passes: collections.deque = collections.deque(maxlen=self._passes_kept)

    @property
    def process_group(self) -> Any:
        return self._process_group.processes

    @process_group.setter
    def process_group(self, processes: Any) -> None:
        self._process_group = _ProcessGroup(processes)
        self._layers.clear()

    def __getstate__(self) -> dict:
        state = self.__dict__.copy()
        for name in ("_layers", "_passes"):
            state.pop(name, None)
        return state

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        self._forget_layers()

    def _check_input_dim(self, x: torch.Tensor) -> None:
        pass  # the layer does, on all processes together

    def _layer(self, is_double: bool, is_alone: bool) -> Any:
        """The library's layer for what the attributes are now. Collective when it is new and not alone."""
        key = (is_double, is_alone, self.num_features, self.eps, self.momentum, self.affine, self.running_mean is not None)
        entry = self._layers.get(key)
        if entry is None:
            group = _alone() if is_alone else _group_for(self.process_group)
            entry = self._layers[key] = (group, _ops.layer(group.group, self.num_features, self.eps, self.momentum,
                                                           self.weight is not None, self.running_mean is not None, is_double,
                                                           getattr(self, "name", type(self).__name__)))
        return entry[1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._forward_uncompiled(x) if _is_compiling() else self._forward(x)

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dim() >= 2 and not (x.is_contiguous() or x.movedim(1, -1).is_contiguous()):
            x = x.contiguous()
        is_double = self._is_double(x)
        if self.training:
            return self._forward_train(x, is_double)
        if self.running_mean is None or self.running_var is None:
            return torch.nn.functional.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)
        return self._normalized(self._layer(is_double, True), _ops.cache.default(), x, _FROZEN)

    def _is_double(self, x: torch.Tensor) -> bool:
        """The layer's type is that of the parameters, the same in all processes: where x does not go with it, all get the error."""
        own = self._parameters.get("weight")  # in a tenth of the time that self.weight takes
        if own is None:
            own = self._buffers.get("running_mean")
        return (x if own is None else own).dtype == torch.float64

    # A graph that is compiled breaks here. (The decorator costs 10 us a call, compiled or not.)
    _forward_uncompiled = _outside_graphs(_forward)

    def _forward_train(self, x: torch.Tensor, is_double: bool) -> torch.Tensor:
        earlier = self._earlier_pass(x) if _is_in_backward() else None
        if earlier is not None:
            return self._normalized(earlier.layer, earlier.cache, x, _AGAIN)
        layer, cache = self._layer(is_double, False), _ops.cache.default()
        if _may_be_repeated():
            self._passes.append(_Pass(layer, cache, _ops.fingerprint.default(x)))
        return self._normalized(layer, cache, x, _TRAIN)

    def _earlier_pass(self, x: torch.Tensor) -> Optional[_Pass]:
        """The pass that this one repeats (activation checkpointing): the last with the same input, if it can be one that has not been
        repeated yet."""
        if not self._passes:
            return None
        fingerprint = _ops.fingerprint.default(x)
        same = [earlier for earlier in reversed(self._passes) if earlier.fingerprint == fingerprint]
        for earlier in sorted(same, key=lambda p: p.was_repeated):
            earlier.was_repeated = True
            return earlier
        return None

    def _normalized(self, layer: Any, cache: torch.Tensor, x: torch.Tensor, kind: int) -> torch.Tensor:
        return _ops.normalize.default(layer, cache, x, self.weight, self.bias, self.running_mean, self.running_var,
                                      self.num_batches_tracked, kind)

    @classmethod
    def convert_sync_batchnorm(cls, module: torch.nn.Module, process_group: Any = None) -> torch.nn.Module:
        """As the function of this name."""
        return convert_sync_batchnorm(module, process_group)


class BatchNormNd(_BatchNorm):
    """Local batch normalization of any number of dimensions: what a SyncBatchNorm becomes that was made as one."""

    def _check_input_dim(self, x: torch.Tensor) -> None:
        if x.dim() < 2:
            raise ValueError(f"expected at least 2D input (got {x.dim()}D input)")


# ---- from local to synchronized and back ---------------------------------------------------------------------------------


def _like(old: _BatchNorm, new: _BatchNorm) -> _BatchNorm:
    """`new` with the parameters, buffers and settings of `old`: the same objects, so optimizers and other holders stay right."""
    for name in ("weight", "bias"):
        new.register_parameter(name, getattr(old, name))
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        new.register_buffer(name, getattr(old, name))
    new.training = old.training
    own = ("_process_group", "_original_class", "_layers", "_passes", "name")
    for name, value in old.__dict__.items():  # hooks, and what else somebody has put there
        if "_hook" in name or (name not in new.__dict__ and name not in own):
            new.__dict__[name] = value
    return new


def _settings(old: _BatchNorm) -> tuple:
    return (old.num_features, old.eps, old.momentum, old.affine, old.track_running_stats)


def _replaced(module: torch.nn.Module, replace, done: dict) -> torch.nn.Module:
    """The tree with every module replaced by replace(module, name); a module that hangs in two places stays one module."""

    def visit(current: torch.nn.Module, name: str) -> torch.nn.Module:
        if id(current) not in done:
            new = replace(current, name)
            done[id(current)] = new
            for child_name, child in list(current._modules.items()):  # named_children() leaves out a second name of a module
                if child is None:
                    continue
                new_child = visit(child, f"{name}.{child_name}" if name else child_name)
                if new_child is not child or new is not current:
                    new.add_module(child_name, new_child)
        return done[id(current)]

    return visit(module, "")


def convert_sync_batchnorm(module: torch.nn.Module, process_group: Any = None) -> torch.nn.Module:
    """Replaces every batch norm of the tree (BatchNorm1d, 2d, 3d, torch.nn.SyncBatchNorm) by SyncBatchNorm, with the same parameter
    and buffer objects, training flag and names; module paths stand in error messages. revert_sync_batchnorm() undoes it."""

    def replace(old: torch.nn.Module, name: str) -> torch.nn.Module:
        if not isinstance(old, _BatchNorm) or isinstance(old, SyncBatchNorm):
            return old
        if old.num_features == 0:
            raise ValueError(f"'{name}' is a {type(old).__name__} that has not seen its features: run a batch before converting it")
        new = _like(old, SyncBatchNorm(*_settings(old), process_group=process_group, device="meta"))
        new.name = name or type(old).__name__
        new._original_class = BatchNormNd if isinstance(old, torch.nn.SyncBatchNorm) else type(old)
        return new

    return _replaced(module, replace, {})


def revert_sync_batchnorm(module: torch.nn.Module) -> torch.nn.Module:
    """Replaces every SyncBatchNorm (and torch.nn.SyncBatchNorm) of the tree by the class that it was converted from, else by
    BatchNormNd."""

    def replace(old: torch.nn.Module, _name: str) -> torch.nn.Module:
        if not isinstance(old, (SyncBatchNorm, torch.nn.SyncBatchNorm)):
            return old
        new = (getattr(old, "_original_class", None) or BatchNormNd).__new__(getattr(old, "_original_class", None) or BatchNormNd)
        _BatchNorm.__init__(new, *_settings(old), device="meta")
        return _like(old, new)

    return _replaced(module, replace, {})
