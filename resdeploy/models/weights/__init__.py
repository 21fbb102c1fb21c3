"""Where weights come from: files, caches and servers enter, float32 tensors leave."""
