"""Evidence about an unlearned model: measurements beside its references, and a verdict in words."""
