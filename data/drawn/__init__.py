"""Scenes of coloured shapes, drawn into data/shapes for the embedded samples."""
