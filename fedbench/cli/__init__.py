"""What a person types and sees: the only package that prints."""
