"""Operations that networks are made of: a plain torch reference each, and kernels for a CPU (`cpu/`)."""
