"""What a clip of a moving digit shows: which digit, where it goes, how sharp it stays."""
