"""Policies that may move only so far: how much they spend, and the temperatures at which that is what they may."""
