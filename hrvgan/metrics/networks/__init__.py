"""The published networks behind IS, FID and FVD, with the parameter names of their published files."""
