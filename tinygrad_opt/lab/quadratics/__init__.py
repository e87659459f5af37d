"""Theory beside the run: on a quadratic an optimizer is a linear map."""
