"""What is refused: the data contract, its suites and checkpoints, and the gates of promotion."""
