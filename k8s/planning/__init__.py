"""What a load will need and cost: pods and prices from measured capacities, forecasts of the request rate, schedules.

Nothing here asks a cluster; the numbers of a pod are those of `k8s/numbers.py`.
"""
