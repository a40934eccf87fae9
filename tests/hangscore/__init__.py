"""Scripts that hang, each with the rank and line that are to blame, and slow ones that do not hang."""
