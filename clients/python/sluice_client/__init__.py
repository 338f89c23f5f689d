"""A client of Sluice: answers that resume by themselves, and are polled where nothing streams."""
