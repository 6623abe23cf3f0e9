"""`hone deploy preflight`: what a deployment lacks before it is made. It asks, and changes nothing.

`cluster` asks the cluster, `keys` looks into its secrets, `scraped` whether Prometheus will find the pods, and `images`
asks the registries.
"""

from hone.records import Finding

from .cluster import NEWEST, OLDEST, preflight, quantity
from .images import images

__all__ = ["NEWEST", "OLDEST", "Finding", "images", "preflight", "quantity"]
