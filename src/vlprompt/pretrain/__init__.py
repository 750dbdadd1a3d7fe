"""Learning a prompt on very many classes and images, by steps, alone or in several processes."""
