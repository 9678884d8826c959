"""Offline: datasets become shards. Online: shards become episodes."""
