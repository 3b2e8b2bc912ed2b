"""Engines: each turns any step program into a posterior, and knows no model."""
