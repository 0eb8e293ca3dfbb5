"""Energy of a plain PyTorch loop: `python examples/plain_loop.py`.

Windows may lie inside each other. Here one holds the whole training, and two in each epoch hold its parts.
A window's edges are host times: on a GPU, call `torch.cuda.synchronize()` before an edge that has to be exact.
"""

import torch

from lightning_watt import EnergyMeter


def main(epochs: int = 3) -> None:
    """Train, evaluate, and print which of the two used how much."""
    x = torch.randn(8192, 16, generator=torch.Generator().manual_seed(0))
    y = (x.sum(1) > 0).long()
    model = torch.nn.Sequential(torch.nn.Linear(16, 256), torch.nn.ReLU(), torch.nn.Linear(256, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    parts, accuracy = [], 0.0

    with EnergyMeter() as meter:
        with meter.window("whole") as whole:
            for _ in range(epochs):
                with meter.window("train") as train:
                    for inputs, labels in zip(x.split(64), y.split(64), strict=True):
                        optimizer.zero_grad()
                        torch.nn.functional.cross_entropy(model(inputs), labels).backward()
                        optimizer.step()
                with meter.window("evaluate") as evaluate, torch.inference_mode():
                    accuracy = (model(x).argmax(1) == y).float().mean().item()
                parts += [train, evaluate]

        # Leaving a window does not wait. Reading its number does, until the counters have passed its end.
        for name in ("train", "evaluate"):
            joules = sum(window.joules for window in parts if window.name == name)
            print(f"{name}: {joules:.3g} J")
        print(f"whole: {whole.joules:.3g} J ± {whole.uncertainty_j:.2g} J, accuracy {accuracy:.2f}")
        for device in meter.devices:
            print(f"{device.label} ({device.name}): {device.source}, {device.provenance}")


if __name__ == "__main__":
    main()
