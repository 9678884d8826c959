"""Learners: a support set becomes a classifier. Nothing here yet."""
