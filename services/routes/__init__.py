"""What each path answers: predictions, management, pages; and the hub, which knows the models behind them.

Bytes and limits are in `http`, what a body means in `protocols`.
"""
