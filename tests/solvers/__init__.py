"""What is fitted at once."""
