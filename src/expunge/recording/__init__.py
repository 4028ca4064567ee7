"""What a first training shows of each example, recorded while it runs, so that wrong labels cost no training later."""
