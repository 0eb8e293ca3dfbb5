"""The report's figures, one module each; `style` holds what they share."""
