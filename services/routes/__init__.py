"""What each path answers: predictions, management, pages, and the hub that knows the models behind them."""
