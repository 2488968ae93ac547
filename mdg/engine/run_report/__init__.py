"""Training runs as one page to read: curves, scores, pictures of frames, configuration and machine."""
