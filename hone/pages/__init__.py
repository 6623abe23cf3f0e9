"""What HTML pages of several rooms share: figures, the page's head."""
