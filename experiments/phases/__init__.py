"""The study's phases: pretrain, finetune, inference, and the three in one job (Lightning's stages are finer)."""
