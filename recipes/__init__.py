"""Whole models, made of contar's parts."""

import contar  # noqa: F401 - before diffusers, which would have xformers report what it lacks
