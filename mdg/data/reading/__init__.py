"""Files as people have them: what they are, what they are called, and what they show."""
