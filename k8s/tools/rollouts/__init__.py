"""How a new version gets its requests step by step in a cluster: `hone k8s render --rollout`."""
