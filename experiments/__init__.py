"""The study: eight model families through pretraining, finetuning and inference, each with its energy."""
