"""The gradients of a step, added up over all ranks while the backward pass still computes others.

torch's DistributedDataParallel is what does it: it sends the gradients of a part of the model as soon as they are
there. With one process nothing of this happens.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from app.pipeline.train.ranks import Ranks, meet

Losses = dict[str, Tensor]


class GradientSum:
    """Replaces the gradients of a step by their sum over all ranks; one that nobody has stays None.

    A step is a block of :meth:`of_step` with blocks of :meth:`of_part` in it, whose losses come out of :meth:`losses`.
    """

    def __init__(self, model: nn.Module, ranks: Ranks) -> None:
        self._model = model
        self._ranks = ranks
        self._is_alone = ranks.count == 1
        self._parallel: DistributedDataParallel | None = None
        self._learning: list[int] = []
        self._num_sent = 0  # buckets of the step under way

    @contextmanager
    def of_step(self) -> Iterator[None]:
        """Parts of a step, or none: every rank sends the same number of sums, whatever it has or goes wrong in it."""
        if self._is_alone:
            yield
            return
        parallel = self._wrap_what_learns()
        self._num_sent = 0
        try:
            yield
            if not self._num_sent:  # no batch for this rank
                parallel(None)["nothing"].backward()
        except Exception:
            meet(lambda: self._send_the_rest(parallel))
            raise

    @contextmanager
    def of_part(self, is_last: bool) -> Iterator[None]:
        """Forward and backward on a part of the step; with the last one of this rank its gradients are sent."""
        if self._parallel is None or is_last:
            yield
        else:
            with self._parallel.no_sync():
                yield

    def losses(self, compute: Callable[[], Losses]) -> Losses:
        """What ``compute`` makes of the model: from here on it is known which parameters will have a gradient."""
        return compute() if self._parallel is None else self._parallel(compute)

    def _wrap_what_learns(self) -> DistributedDataParallel:
        """The model with hooks on what is trainable now; anew when another part of it learns."""
        learning = [id(parameter) for parameter in self._model.parameters() if parameter.requires_grad]
        if self._parallel is None or learning != self._learning:
            self._parallel = None  # its hooks go with it
            with self._ranks.together():  # it allocates: whom it fails, the others must not wait for
                self._parallel = DistributedDataParallel(
                    _Losses(self._model),
                    init_sync=False,  # the weights follow from one seed, or from one file
                    find_unused_parameters=True,
                    gradient_as_bucket_view=True,
                )
            self._parallel.broadcast_buffers = False  # statistics of batch norm become their mean after the step
            self._parallel.register_comm_hook(None, self._send)
            self._learning = learning
        return self._parallel

    def _send(self, state: None, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        """The sum of a bucket over all ranks. By itself torch takes the mean, whose division can round."""
        self._num_sent += 1
        work = dist.all_reduce(bucket.buffer(), async_op=True)
        return work.get_future().then(lambda done: done.value()[0])

    def _send_the_rest(self, parallel: DistributedDataParallel) -> None:
        """Zeros for what an error has left out, as torch's ``join`` does: the others wait for it in their backward."""
        rest = parallel.reducer._get_zeros_like_grad_buckets()[self._num_sent :]
        for bucket in rest:
            dist.all_reduce(bucket.buffer())
        if rest:  # behind the last bucket goes which parameters were used
            dist.all_reduce(parallel.reducer._get_local_used_map())


class _Losses(nn.Module):
    """The losses of a batch as the output of a module, which is what DistributedDataParallel looks at."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        # What a rank without a batch has a gradient for: with none at all its backward pass would send nothing.
        self.nothing = nn.Parameter(torch.zeros((), device=next(model.parameters()).device))

    def forward(self, compute: Callable[[], Losses] | None) -> Losses:
        return {"nothing": self.nothing * 1} if compute is None else compute()
