"""Whole models, made of contar's parts."""
