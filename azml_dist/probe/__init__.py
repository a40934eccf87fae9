"""`azml-dist probe`: small jobs that find out what a workspace really does, and what its nodes have."""
