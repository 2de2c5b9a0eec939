"""Operations of the networks: a reference in plain torch each, and fast kernels for a CPU (`cpu/`)."""
