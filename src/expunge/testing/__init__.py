"""What other packages can test their own methods with."""
