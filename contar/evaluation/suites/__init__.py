"""Suites of prompts that others' evaluators judge: what to sample, into which files, the scores."""
