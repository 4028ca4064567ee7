"""Models on a problem: measurements, the references they stand beside, the noise floor, and the verdict."""
