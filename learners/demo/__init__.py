"""A web page that adapts a learner to a few images and classifies others, served to this computer alone."""
