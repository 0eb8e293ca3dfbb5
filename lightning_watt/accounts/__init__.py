"""Accounts: what was used by stage, epoch, batch and device, and what it is going to be. Pure; no thread, no file."""
