"""LITE: the gradient of a task through a few of its support images, in the memory of one chunk."""
