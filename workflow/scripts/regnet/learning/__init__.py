"""Networks: their weights, batches, training and dense inference. Only torch and numpy."""
