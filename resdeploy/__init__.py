"""From a trained ResNet to verified, quantized, timed and gated artifacts."""
