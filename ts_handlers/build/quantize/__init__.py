"""fp32 ONNX -> INT8 ONNX, one file a way. Graphs in, graphs out: nothing here knows what they are fed with."""
