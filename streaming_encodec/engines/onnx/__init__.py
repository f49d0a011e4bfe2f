"""Engine `onnx` and exported folders: step graphs for ONNX Runtime."""
