"""A graph -> the files of an OpenVINO engine. Needs openvino, and nncf for INT8: imported by those who make such engines."""
