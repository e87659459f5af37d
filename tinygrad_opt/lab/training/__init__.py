"""Inside a training run: what layers, gradients and rates do while it goes on."""
