"""Failed runs whose cause is known, and how many of them the verdict gets right."""
