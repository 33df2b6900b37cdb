"""Cluster profiles: what a site's scheduler, modules, file systems and network are like."""
