"""Loading episodes: plans are cut into chunks, decoded ahead, and delivered in order."""
