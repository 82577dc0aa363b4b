"""What is known: features in Feast (offline and online) and item vectors in Milvus."""
