"""The papers' data sets: rows, addresses, readers of their layouts, and how to get them."""
