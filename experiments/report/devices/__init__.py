"""The same recipes on several devices: what differs in nothing but the device, how much, and whether the order changes."""
