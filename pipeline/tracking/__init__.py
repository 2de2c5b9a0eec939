"""MLflow tracking, the only package that imports mlflow. Losing the tracker never loses the training."""
