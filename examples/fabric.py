"""Energy of a Fabric loop, epoch by epoch: `python examples/fabric.py`.

Fabric has no Trainer, so an `EnergyMeter` measures. A window is a part of the program whose energy you want to know.
Its edges are host times: on a GPU, call `torch.cuda.synchronize()` before an edge that has to be exact.
"""

import torch
from lightning_fabric import Fabric
from torch.utils.data import DataLoader, TensorDataset

from lightning_watt import EnergyMeter


def main(epochs: int = 3) -> None:
    """Train a small network and print what each epoch used."""
    fabric = Fabric(accelerator="auto", devices=1)
    fabric.launch()
    model = torch.nn.Sequential(torch.nn.Linear(8, 256), torch.nn.ReLU(), torch.nn.Linear(256, 2))
    model, optimizer = fabric.setup(model, torch.optim.Adam(model.parameters(), lr=1e-3))
    x = torch.randn(8192, 8, generator=torch.Generator().manual_seed(0))
    batches = fabric.setup_dataloaders(DataLoader(TensorDataset(x, (x.sum(1) > 0).long()), batch_size=64))

    windows = []
    with EnergyMeter() as meter:
        for epoch in range(epochs):
            with meter.window(f"epoch {epoch}") as window:
                for inputs, labels in batches:
                    optimizer.zero_grad()
                    loss = torch.nn.functional.cross_entropy(model(inputs), labels)
                    fabric.backward(loss)
                    optimizer.step()
            windows.append(window)  # its numbers are read after the loop: reading them waits for the counters
        for window in windows:
            print(f"{window.name}: {window.joules:.3g} J ± {window.uncertainty_j:.2g} J in {window.seconds:.2f} s")
        print("by device:", {device: f"{joules:.3g} J" for device, joules in meter.total.by_device.items()})


if __name__ == "__main__":
    main()
