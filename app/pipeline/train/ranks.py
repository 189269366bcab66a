"""Processes that train one model together, one per GPU: each takes its share of the batches of every step.

``torch.distributed.run`` starts them and tells each its rank. All hold the same weights: the gradients of a step are
added up (``gradients.py``). Everything else that is decided (to stop, to judge, what a validation found) is the word of
rank 0, which alone emits events and writes files. With one process nothing of this happens.
"""

import os
import pickle
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from app.pipeline.config import NUM_PROCESSES_VARIABLE
from app.pipeline.machine import MachineError
from app.pipeline.types import Event, Log, RunContext

T = TypeVar("T")


class PeerLost(BaseException):
    """Another process of the run has died. Nothing can go on here: this one must die too, and all begin again."""


class Ranks:
    """The processes of a run as one of them sees them; ``rank`` 0 of ``count`` 1 where a run has one process."""

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank = rank
        self.count = count
        self._context = RunContext()  # rank 0: whoever started the run
        self._is_stopping = False
        self._logs: list[Log] = []  # since they last met
        self._told: set[Log] = set()  # rank 0: warnings; several may find out the same
        self._failure: Exception | None = None  # of telling; raised in all when they meet
        self._thread = threading.get_ident()

    @classmethod
    @contextmanager
    def joined(cls, wanted: int) -> Iterator["Ranks"]:
        """The processes that were started; raises MachineError unless they are ``wanted``.

        0 stands for as many as a job has started, and outside a job for any number.
        """
        count = int(os.environ.get("WORLD_SIZE", "1"))
        chosen = "" if wanted else " (chosen for 0)"
        wanted = wanted or int(os.environ.get(NUM_PROCESSES_VARIABLE, "0"))
        if wanted and count != wanted:
            raise MachineError(
                f"processes is {wanted}{chosen}, but {count} {'was' if count == 1 else 'were'} started: outside a job, "
                f"start your script with `torchrun --nproc-per-node {wanted}`, or set processes to 1"
            )
        if count == 1:
            yield cls()
            return
        if torch.cuda.is_available():
            _take_own_gpu()
        meet(_meet_the_others)
        is_whole = True
        try:
            yield cls(dist.get_rank(), count)
        except PeerLost:
            is_whole = False  # taking leave of the dead would wait for ever
            raise
        finally:
            if is_whole:
                dist.destroy_process_group()

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def context_for(self, context: RunContext) -> RunContext:
        """How this process talks: rank 0 to whoever started the run; of the others only log lines get there."""
        if self.count == 1:
            return context
        self._context = context
        return RunContext(self._emit, lambda: self._is_stopping)

    def in_turn(self, work: Callable[[], T]) -> T:
        """Do ``work`` in rank 0 first, then in all others: it may leave files that they read. Errors are shared."""
        result: list[T] = []
        for is_turn in (self.is_first, not self.is_first):
            with self.together():
                if is_turn:
                    result.append(work())
        return result[0]

    @contextmanager
    def together(self) -> Iterator[None]:
        """A block of every process: an error in one of them is raised in all, and whether to stop is agreed upon."""
        if self.count == 1:
            yield
            return
        error: Exception | None = None
        try:
            yield
        except Exception as raised:
            error = raised
        self._agree_on_end(error)

    def taken_together(self, items: Iterator[T]) -> Iterator[T]:
        """The ``items``, as many in every process; an error in getting one is raised in all."""
        end = object()
        while True:
            with self.together():
                item = next(items, end)
            if item is end:
                return
            yield item

    def gather(self, what: str, value: T) -> list[T]:
        """The values of all processes, in order of rank; ``what`` they are must be the same in all."""
        if self.count == 1:
            return [value]
        found: list[Any] = [None] * self.count
        meet(lambda: dist.all_gather_object(found, (what, value)))
        if any(name != what for name, _ in found):
            raise PeerLost(f"the processes of this run are not at one place: {[name for name, _ in found]}")
        return [one for _, one in found]

    def agree(self, what: str, value: T) -> T:
        """The value of rank 0."""
        return self.gather(what, value)[0]

    def average_statistics(self, model: nn.Module) -> None:
        """Give the running statistics of batch norm their mean over all processes."""
        if self.count == 1:
            return
        norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
        found: list[Tensor] = [buffer for norm in norms for buffer in (norm.running_mean, norm.running_var)]
        if found:
            flat = torch.cat(found)
            meet(lambda: dist.all_reduce(flat))
            for buffer, mean in zip(found, flat.div_(self.count).split([len(one) for one in found]), strict=True):
                buffer.copy_(mean)

    def _agree_on_end(self, error: Exception | None) -> None:
        logs, self._logs = self._logs, []
        error, self._failure = error or self._failure, None
        is_asked = self.is_first and self._context.should_stop()
        ends = self.gather("end", (_portable(error), is_asked, logs))
        self._is_stopping = self._is_stopping or ends[0][1]
        if self.is_first:
            for log in (log for end in ends[1:] for log in end[2]):
                self._tell(log)
        for rank, (raised, *_) in enumerate(ends):  # the first of them in all: each looks for the same remedy
            if raised is not None and rank == self.rank:
                raise error
            if raised is not None:
                raise raised from None  # it has nothing to do with what went wrong here

    def _emit(self, event: Event) -> None:
        if isinstance(event, Log) and event.level != "info":  # what rank 0 may not have found out by itself
            self._logs.append(event)
        if self.is_first:
            self._tell(event)

    def _tell(self, event: Event) -> None:
        """What whoever started the run fails at, is heard of by all at their next meeting: they may wait there."""
        if isinstance(event, Log) and event.level != "info":
            if event in self._told:
                return
            self._told.add(event)
        try:
            self._context.emit(event)
        except Exception as error:
            if threading.get_ident() != self._thread:  # it gets to those who wait for that thread
                raise
            self._failure = self._failure or error


def _take_own_gpu() -> None:
    started, there = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
    if started > there:  # raised in all of them alike: the others would wait for one that has left
        raise MachineError(f"{started} processes were started, but GPUs here: {there}. Set processes to 0")
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))


def _meet_the_others() -> None:
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    store, rank, count = next(dist.rendezvous("env://"))
    # After a restart the store still has the addresses of those that died.
    store = dist.PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=count)


def meet(collective: Callable[[], Any]) -> None:
    """Do what every process takes part in; raises PeerLost where one of them is gone."""
    try:
        collective()
    except RuntimeError as error:  # torch's DistError is one
        raise PeerLost(f"another process of this run has died ({str(error)[:200]})") from error


def _portable(error: Exception | None) -> Exception | None:
    """The error as it can be sent to another process."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever its class does not do
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
