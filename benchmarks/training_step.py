"""The training step against the loop of torchvision's detection references, on the same batches from the same weights.

    python -m benchmarks.training_step speed [--model M] [--sizes 320 512] [--norms frozen batch] [--batch 2]
    python -m benchmarks.training_step batches            our images a second at batch 2, beside those at batch 16
    python -m benchmarks.training_step calls              kernels and waits of a step at batch 2 and 8
    python -m benchmarks.training_step memory             bytes kept for the backward pass under mixed precision
    python -m benchmarks.training_step curves EXPORT      losses of short trainings with several seeds

All but calls take ``--device cuda``; docs/benchmarks.md says what the goals ask of a GPU.

speed: all variants take turns on each batch; a round's ratio is the reference's time over ours in that round. Batches
begin on the host, ours as bytes and the reference's as floats, as their loaders hand them over.
calls: counted on the CPU, with the choices that a GPU gets; a wait is an operation whose result the host must know.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.step_calls import measure_calls
from benchmarks.step_curves import NUM_WINDOWS, measure_curves
from benchmarks.step_memory import measure_memory
from benchmarks.step_speed import measure_batches, measure_speed

DETECTOR = "fasterrcnn_resnet50_fpn"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    subparsers = parser.add_subparsers(required=True)
    speed, batches, calls, memory, curves = (
        subparsers.add_parser(name) for name in ("speed", "batches", "calls", "memory", "curves")
    )
    for part in (speed, batches, calls, memory):
        part.add_argument("--model", default=DETECTOR)
    for part in (speed, batches, memory, curves):
        part.add_argument("--device", default="cpu", choices=["auto", "cpu", "cuda", "mps"])
    for part in (speed, batches, memory):
        part.add_argument("--norms", nargs="+", default=["frozen", "batch"], choices=["frozen", "batch"])
    for part in (speed, memory):
        part.add_argument("--sizes", type=int, nargs="+", default=[512])
        part.add_argument("--batch", type=int, default=2)
    for part in (speed, batches):
        part.add_argument("--rounds", type=int, default=5)
    batches.add_argument("--size", type=int, default=512)
    batches.add_argument("--batches", type=int, nargs=2, default=[2, 16])
    batches.add_argument("--precision", default="auto", choices=["auto", "float32", "bfloat16", "float16"])
    curves.add_argument("export", type=Path, help="a COCO export")
    curves.add_argument("--model", default="fasterrcnn_resnet18_fpn")
    curves.add_argument("--size", type=int, default=96)
    curves.add_argument("--steps", type=int, default=100, choices=range(NUM_WINDOWS, 100_000), metavar="N")
    precisions = ["float32", "bfloat16", "float16"]
    curves.add_argument("--precision", default="float32", choices=precisions)
    curves.add_argument("--plain-precision", choices=precisions, help="of the reference (default: that of ours)")
    for part, measure in (
        (speed, measure_speed),
        (batches, measure_batches),
        (calls, measure_calls),
        (memory, measure_memory),
        (curves, measure_curves),
    ):
        part.set_defaults(measure=measure)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    values = build_parser().parse_args(arguments)
    values.measure(values)


if __name__ == "__main__":
    main()
