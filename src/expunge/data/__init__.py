"""Reading, holding and batching examples; nothing here knows about forgetting."""
