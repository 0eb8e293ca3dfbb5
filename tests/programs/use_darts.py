"""A forecast with darts: fit, predict, and a backtest that trains anew at each of its steps."""

import numpy as np
import torch
from darts import TimeSeries
from darts.models import TCNModel

torch.set_num_threads(1)
series = TimeSeries.from_values(np.sin(np.arange(160) / 6).astype("float32"))
model = TCNModel(
    input_chunk_length=24,
    output_chunk_length=12,
    n_epochs=2,
    batch_size=16,
    random_state=0,
    pl_trainer_kwargs={"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False},
)
model.fit(series)
forecast = model.predict(6)
backtest = model.historical_forecasts(series, start=0.75, forecast_horizon=6, stride=10, retrain=True)
print("RESULT", forecast.values().ravel().tolist(), backtest.values().ravel().tolist())
