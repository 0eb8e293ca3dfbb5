"""The NVML lab: fake NVIDIA boards with known power, seen through the real pynvml (see README.md).

Two boards, a square wave and one that is lost after two seconds:

    from lightning_watt.testing.nvml_lab import Board, Fault, Lab, constant, square

    def test_two_boards():
        lossy = Board(power=constant(120), faults=[Fault("lost", at_s=2.0)])
        lab = Lab([Board(power=square(300, 80, 0.81)), lossy])
        with lab.running():
            t0_ns = time.monotonic_ns()
            ...  # anything that uses pynvml
            joules = lab.true_joules(0, t0_ns, time.monotonic_ns())
        subprocess.run([sys.executable, "train.py"], env=lab.env())  # the same boards on the same timeline
"""

from lightning_watt.testing.nvml_lab.boards import Board
from lightning_watt.testing.nvml_lab.build import LabError
from lightning_watt.testing.nvml_lab.clock import ReplayClock
from lightning_watt.testing.nvml_lab.curve import Curve, constant, ramp, square, steps
from lightning_watt.testing.nvml_lab.faults import GPU_IS_LOST, UNKNOWN, Fault
from lightning_watt.testing.nvml_lab.lab import Lab
from lightning_watt.testing.nvml_lab.named import BOARDS, named

__all__ = [
    "BOARDS",
    "GPU_IS_LOST",
    "UNKNOWN",
    "Board",
    "Curve",
    "Fault",
    "Lab",
    "LabError",
    "ReplayClock",
    "constant",
    "named",
    "ramp",
    "square",
    "steps",
]
