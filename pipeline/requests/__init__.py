"""From events to requests: order, histories, negatives, encoding."""
