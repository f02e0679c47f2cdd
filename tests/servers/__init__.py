"""Real servers that end-to-end tests start: each package is one of them."""
