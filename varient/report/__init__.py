"""Rendering: records and the paper's data become tables and pictures; nothing is computed twice here."""
