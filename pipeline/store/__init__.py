"""Reading samples' bytes: from local files, from mapped files, or from object stores through a local cache."""
