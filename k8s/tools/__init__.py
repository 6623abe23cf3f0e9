"""What writes and checks manifests and images: render, containerize, preflight, dashboard, bill of materials.

The YAML itself lies beside this folder.
"""
