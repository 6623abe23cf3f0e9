"""Passes that bring a model into a runtime's form: ONNX, its providers and settings, OpenVINO, TensorRT, MLX."""
