"""Checks of what `deploy/` holds for clusters, without a cluster."""
