"""Heads: the features of a support set become a classifier of features."""
