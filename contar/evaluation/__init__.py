"""Is what came out good? Judges, tracks, distances, reports."""
