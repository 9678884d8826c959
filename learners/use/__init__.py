"""Use a trained learner on your own images: adapt it to a few, then classify others."""
