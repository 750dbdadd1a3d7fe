"""What must hold of every method, whatever it does."""
