"""What the command line says and does by itself, before and beside any run. Nothing here imports JAX."""
