"""What `nvml.py` knows about NVIDIA's driver and boards: its power samples, its binding, and what boards were seen to do."""
