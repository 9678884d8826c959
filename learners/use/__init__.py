"""Using a trained learner on one's own images: folders in, class names and probabilities out."""
