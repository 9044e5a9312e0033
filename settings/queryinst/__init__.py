"""QueryInst's configs: the schema of MMDetection's structure, and where recipes are found."""
