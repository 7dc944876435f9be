"""Signs and half turns of sine networks, and canonical zoos."""
