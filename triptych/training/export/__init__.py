"""The joint model as ONNX graphs, written by hand: float32 for parity, eight bits to ship."""
