"""Fields of one request: products, attention and graphs among them."""
