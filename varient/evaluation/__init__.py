"""Evaluation: features of images, and scores of one set of images against another."""
