"""What HTML pages of several rooms share: the base that they are drawn on, and figures."""
