"""n8n: the workflows, as it imports them."""
