"""Others' weights in, ours out."""
