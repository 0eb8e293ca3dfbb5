"""One run's accounts: what it used by stage, epoch and device, over its sessions and nodes."""
