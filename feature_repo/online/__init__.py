"""Features as services read them: one packed row a key, bulk reads, freshness."""
