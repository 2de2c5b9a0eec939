"""`python -m pipeline.tracking`: where the MLflow store is; make a lost record anew."""

from pipeline.tracking import main

main()
