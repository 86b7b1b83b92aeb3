"""What recipes share: sizes, building with random weights, heads by name."""
