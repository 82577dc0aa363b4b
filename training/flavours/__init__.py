"""One short script a model kind, by which MLflow's own tools (`mlflow models serve`, `mlflow.pyfunc`) load it.

MLflow stores the script's text beside the weights, so that no class is pickled. The services do not come this
way: they read the weights with `training.models` and never import MLflow in a request.
"""
