"""The Watt tab of TensorBoard: accuracy against energy over all runs. TensorBoard finds it once it is installed."""
