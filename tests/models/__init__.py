"""The models of the tests, one file a model or family; `zoo` holds many kinds as people bring them."""
