"""LightningModules of the study: supervised, masked and contrastive training, and the recipes they share."""
