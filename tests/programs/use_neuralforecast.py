"""A forecast with neuralforecast: two models on two series, then a cross-validation."""

import numpy as np
import pandas as pd
import torch
from neuralforecast import NeuralForecast
from neuralforecast.models import MLP, NHITS

torch.set_num_threads(1)
frames = [
    pd.DataFrame(
        {
            "unique_id": name,
            "ds": pd.date_range("2020-01-01", periods=120, freq="D"),
            "y": np.sin(np.arange(120) / period).astype("float32"),
        }
    )
    for name, period in (("fast", 3), ("slow", 9))
]
data = pd.concat(frames, ignore_index=True)
shared = {"h": 6, "input_size": 12, "max_steps": 10, "accelerator": "cpu", "enable_progress_bar": False, "random_seed": 1}
forecaster = NeuralForecast(models=[MLP(**shared), NHITS(**shared)], freq="D")
forecaster.fit(data)
forecast = forecaster.predict()
folds = forecaster.cross_validation(data, n_windows=2)
print("RESULT", forecast[["MLP", "NHITS"]].to_numpy().tolist(), folds[["MLP", "NHITS"]].to_numpy().tolist())
