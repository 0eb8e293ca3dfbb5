"""Whether decoding and augmentation of video keep up with the training step."""
