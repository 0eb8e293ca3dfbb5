"""Where energy readings come from: one module a source; `discover` says what a machine has."""
