"""Networks: their weights, batches, training and dense inference. Needs only numpy, torch and safetensors."""
