"""One run: its session, which fills the accounts, the sessions before it, and the other nodes."""
