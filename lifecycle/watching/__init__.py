"""Looking at models again and again: what people were told, and gauges. What is looked at is in other rooms."""
